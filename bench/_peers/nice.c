// SPDX-License-Identifier: MIT
/*
 * libnice: an agent on each side, its candidates from a STUN server on the way,
 * its connectivity checks, a word each way. Nothing is tuned; UPnP and ICE-TCP
 * are off, as nothing in the lab answers to them.
 *
 * Arguments and the last line are those of talk.py, and so is the signalling,
 * but that it is packets: "NUMBER\nUSER\nPASSWORD\nCANDIDATE\n..." an attempt.
 */
#include <agent.h>
#include <errno.h>
#include <glib-unix.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define STUN_PORT 3578
#define COMPONENT 1
#define PACKET_LEN 8192
/* At once, and the peer would miss the answer to its last check. */
#define CLOSE_LATE_MS 300
#define LINGER_MS 1000

struct talk;

struct attempt {
	struct talk *talk;
	NiceAgent *agent;
	guint stream, timer;
	int number;
	gint64 begun_us;
	double took_ms; /* 0: none, or not yet */
	bool gathered, told, ended;
	char *theirs;
};

struct talk {
	bool controlling;
	const char *own, *stun;
	int signalling;
	int count, concurrency, timeout_ms;
	int begun, running, ended;
	gint64 begun_us, ended_us;
	double cpu_s;
	GMainLoop *loop;
	struct attempt *attempts;
};

static double cpu_s(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void begin(struct talk *talk, int number);

static gboolean quit(gpointer data)
{
	g_main_loop_quit(((struct talk *)data)->loop);
	return G_SOURCE_REMOVE;
}

static gboolean close_agent(gpointer data)
{
	struct attempt *attempt = data;

	g_clear_object(&attempt->agent);
	return G_SOURCE_REMOVE;
}

static void end(struct attempt *attempt, bool ok)
{
	struct talk *talk = attempt->talk;
	gint64 now_us = g_get_monotonic_time();

	if (attempt->ended)
		return;
	attempt->ended = true;
	if (ok)
		attempt->took_ms = (double)(now_us - attempt->begun_us) / 1e3;
	if (attempt->timer)
		g_source_remove(attempt->timer);
	attempt->timer = 0;
	g_timeout_add(CLOSE_LATE_MS, close_agent, attempt);
	talk->running--;
	talk->ended++;
	while (talk->controlling && talk->running < talk->concurrency &&
	       talk->begun < talk->count)
		begin(talk, talk->begun);
	if (talk->ended == talk->count) {
		talk->ended_us = now_us;
		talk->cpu_s = cpu_s() - talk->cpu_s;
		g_timeout_add(LINGER_MS, quit, talk);
	}
}

static gboolean time_up(gpointer data)
{
	struct attempt *attempt = data;

	attempt->timer = 0;
	end(attempt, false);
	return G_SOURCE_REMOVE;
}

static void heard(NiceAgent *agent, guint stream, guint component, guint len,
		  gchar *data, gpointer user)
{
	(void)agent, (void)stream, (void)component, (void)len, (void)data;
	end(user, true);
}

/* A word at each of the two: the peer may not listen yet at the first. */
static void changed(NiceAgent *agent, guint stream, guint component,
		    guint state, gpointer user)
{
	struct attempt *attempt = user;

	(void)component;
	if (state == NICE_COMPONENT_STATE_FAILED)
		end(attempt, false);
	if (state == NICE_COMPONENT_STATE_READY ||
	    (state == NICE_COMPONENT_STATE_CONNECTED && !attempt->told)) {
		attempt->told = true;
		nice_agent_send(agent, stream, COMPONENT, 1, "x");
	}
}

/* What the peer said, as soon as we can use it. */
static void hear(struct attempt *attempt)
{
	char *rest = attempt->theirs, *line, *user, *word;
	GSList *candidates = NULL;

	if (!rest || !attempt->gathered || attempt->ended)
		return;
	user = strsep(&rest, "\n");
	word = strsep(&rest, "\n");
	nice_agent_set_remote_credentials(attempt->agent, attempt->stream, user,
					  word);
	while ((line = strsep(&rest, "\n")) && *line) {
		NiceCandidate *one = nice_agent_parse_remote_candidate_sdp(
			attempt->agent, attempt->stream, line);

		if (one)
			candidates = g_slist_append(candidates, one);
	}
	nice_agent_set_remote_candidates(attempt->agent, attempt->stream,
					 COMPONENT, candidates);
	g_slist_free_full(candidates, (GDestroyNotify)nice_candidate_free);
	g_clear_pointer(&attempt->theirs, g_free);
}

static void gathered(NiceAgent *agent, guint stream, gpointer user)
{
	struct attempt *attempt = user;
	g_autofree gchar *name = NULL, *word = NULL;
	g_autoptr(GString) text = g_string_new(NULL);
	GSList *mine;

	if (attempt->ended)
		return;
	attempt->gathered = true;
	nice_agent_get_local_credentials(agent, stream, &name, &word);
	g_string_printf(text, "%d\n%s\n%s\n", attempt->number, name, word);
	mine = nice_agent_get_local_candidates(agent, stream, COMPONENT);
	for (GSList *one = mine; one; one = one->next) {
		g_autofree gchar *line =
			nice_agent_generate_local_candidate_sdp(agent,
								one->data);

		g_string_append_printf(text, "%s\n", line);
	}
	g_slist_free_full(mine, (GDestroyNotify)nice_candidate_free);
	if (send(attempt->talk->signalling, text->str, text->len, 0) < 0)
		perror("signalling");
	hear(attempt);
}

static void begin(struct talk *talk, int number)
{
	struct attempt *attempt = &talk->attempts[number];
	NiceAddress own;

	if (!talk->begun++) {
		talk->begun_us = g_get_monotonic_time();
		talk->cpu_s = cpu_s();
	}
	talk->running++;
	attempt->talk = talk;
	attempt->number = number;
	attempt->begun_us = g_get_monotonic_time();
	attempt->agent = nice_agent_new(NULL, NICE_COMPATIBILITY_RFC5245);
	g_object_set(attempt->agent, "stun-server", talk->stun,
		     "stun-server-port", STUN_PORT, "controlling-mode",
		     talk->controlling, "upnp", FALSE, "ice-tcp", FALSE, NULL);
	nice_address_init(&own);
	nice_address_set_from_string(&own, talk->own);
	nice_agent_add_local_address(attempt->agent, &own);
	g_signal_connect(attempt->agent, "candidate-gathering-done",
			 G_CALLBACK(gathered), attempt);
	g_signal_connect(attempt->agent, "component-state-changed",
			 G_CALLBACK(changed), attempt);
	attempt->stream = nice_agent_add_stream(attempt->agent, 1);
	nice_agent_attach_recv(attempt->agent, attempt->stream, COMPONENT, NULL,
			       heard, attempt);
	attempt->timer = g_timeout_add(talk->timeout_ms, time_up, attempt);
	if (!nice_agent_gather_candidates(attempt->agent, attempt->stream))
		end(attempt, false);
}

/* End of file is no event here: each side ends by itself. */
static gboolean told(gint fd, GIOCondition condition, gpointer user)
{
	struct talk *talk = user;
	char packet[PACKET_LEN];
	ssize_t len;

	(void)condition;
	while ((len = recv(fd, packet, sizeof(packet) - 1, MSG_DONTWAIT)) > 0) {
		char *rest;
		long number;

		packet[len] = '\0';
		number = strtol(packet, &rest, 10);
		if (number < 0 || number >= talk->count || *rest != '\n')
			continue;
		if (!talk->controlling && !talk->attempts[number].agent)
			begin(talk, (int)number);
		talk->attempts[number].theirs = g_strdup(rest + 1);
		hear(&talk->attempts[number]);
	}
	return len < 0 && errno == EAGAIN ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static int meet(const char *path, bool calling)
{
	struct sockaddr_un place = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	g_strlcpy(place.sun_path, path, sizeof(place.sun_path));
	if (calling) {
		if (connect(fd, (struct sockaddr *)&place, sizeof(place)) == 0)
			return fd;
	} else if (bind(fd, (struct sockaddr *)&place, sizeof(place)) == 0 &&
		   listen(fd, 1) == 0) {
		puts("ready");
		fflush(stdout);
		return accept(fd, NULL, NULL);
	}
	perror(path);
	exit(EXIT_FAILURE);
}

static void report(const struct talk *talk)
{
	struct rusage used;
	const char *comma = "";
	int ok = 0;

	getrusage(RUSAGE_SELF, &used);
	printf("{\"times_ms\": [");
	for (int i = 0; i < talk->count; i++)
		if (talk->attempts[i].took_ms > 0) {
			printf("%s%.2f", comma, talk->attempts[i].took_ms);
			comma = ", ";
			ok++;
		}
	printf("], \"ok\": %d, \"seconds\": %.6f, \"cpu_s\": %.6f, "
	       "\"memory_mib\": %ld}\n",
	       ok, (double)(talk->ended_us - talk->begun_us) / 1e6, talk->cpu_s,
	       used.ru_maxrss / 1024);
}

int main(int argc, char **argv)
{
	struct talk talk = { 0 };

	if (argc != 9)
		return EXIT_FAILURE;
	talk.controlling = *argv[1] == 'a';
	talk.count = atoi(argv[3]);
	talk.concurrency = atoi(argv[4]);
	talk.timeout_ms = (int)(atof(argv[5]) * 1000);
	talk.own = argv[6];
	talk.stun = argv[8];
	talk.attempts = g_new0(struct attempt, (gsize)talk.count);
	talk.loop = g_main_loop_new(NULL, FALSE);
	talk.signalling = meet(argv[2], talk.controlling);
	g_unix_fd_add(talk.signalling, G_IO_IN | G_IO_HUP, told, &talk);
	while (talk.controlling && talk.running < talk.concurrency &&
	       talk.begun < talk.count)
		begin(&talk, talk.begun);
	g_main_loop_run(talk.loop);
	report(&talk);
	return EXIT_SUCCESS;
}
