// SPDX-License-Identifier: MIT
/* replay.c - a fuzz target over files, whole and cut at each byte.
 * It finds nothing new: it keeps what was found from coming back.
 *
 * Usage: replay FOLDER. Each input lies in a heap copy of its exact size, so
 * that AddressSanitizer sees the first byte read beyond.
 */
#include "fuzz.h"

#include <dirent.h>

#define INPUT_MAX 4096
#define PATH_MAX_LEN 4096

static void replay(const uint8_t *data, size_t size)
{
	uint8_t *copy;
	size_t len;

	for (len = 0; len <= size; len++) {
		copy = malloc(len ? len : 1);
		HOLDS(copy != NULL);
		memcpy(copy, data, len);
		LLVMFuzzerTestOneInput(copy, len);
		free(copy);
	}
}

int main(int argc, char **argv)
{
	static uint8_t data[INPUT_MAX];
	char path[PATH_MAX_LEN];
	struct dirent *entry;
	size_t files = 0, size;
	FILE *file;
	DIR *dir;

	HOLDS(argc == 2);
	dir = opendir(argv[1]);
	HOLDS(dir != NULL);
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		HOLDS(snprintf(path, sizeof(path), "%s/%s", argv[1],
			       entry->d_name) < (int)sizeof(path));
		file = fopen(path, "rb");
		HOLDS(file != NULL);
		size = fread(data, 1, sizeof(data), file);
		fclose(file);
		replay(data, size);
		files++;
	}
	closedir(dir);
	printf("%zu files\n", files);
	return files ? 0 : 1;
}
