// SPDX-License-Identifier: MIT
/* checksum.c - the Internet checksum over bytes in any alignment.
 * It knows no header and changes none: segment.c decides what is summed.
 */
#include "checksum.h"

#include <arpa/inet.h>

uint32_t punchd_checksum_add(uint32_t sum, const uint8_t *bytes, size_t len)
{
	size_t i;

	for (i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	if (i < len)
		sum += (uint32_t)bytes[i] << 8;
	return sum;
}

uint16_t punchd_checksum_fold(uint32_t sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return htons((uint16_t)~sum);
}
