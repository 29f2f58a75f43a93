/* SPDX-License-Identifier: MIT */
/* checksum.h - the Internet checksum (RFC 1071), for the files that craft.
 * It knows no header; who calls says which bytes count.
 */
#ifndef PUNCHD_CHECKSUM_H
#define PUNCHD_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/**
 * punchd_checksum_add() - Add bytes to a running sum
 * @sum:	sum so far, 0 to begin with
 * @bytes:	read only; owned by the caller
 * @len:	at most 65535; only the last piece may be odd
 *
 * Return: the sum, not yet folded
 */
uint32_t punchd_checksum_add(uint32_t sum, const uint8_t *bytes, size_t len);

/**
 * punchd_checksum_fold() - End a sum
 * @sum:	of all bytes, the checksum field among them being zero
 *
 * Return: the checksum in network order, ready to be stored
 */
uint16_t punchd_checksum_fold(uint32_t sum);

#endif
