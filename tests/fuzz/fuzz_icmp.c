/* SPDX-License-Identifier: BSD-2-Clause */
/* Any bytes as a refused packet: what is answered is a whole message with a right checksum, to the packet's source. */
#include <stdlib.h>
#include <string.h>

#include "icmp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *buf = malloc(ICMP_MSG_MAX); /* so that a byte too many is seen */
	uint8_t *snap = malloc(size ? size : 1);
	uint32_t sum = 0, dst;
	size_t len;

	if (!buf || !snap)
		abort();
	memcpy(snap, data, size);
	/* Nearly every mutation breaks the header's checksum: put it right, as long as the last byte is even. */
	if (size >= 20 && !(data[size - 1] & 1)) {
		size_t ihl = (snap[0] & 0xf) * 4u;

		snap[10] = snap[11] = 0;
		for (size_t i = 0; i < ihl && i < size; i++)
			sum += i % 2 ? snap[i] : snap[i] * 256u;
		sum = sum % 65536 + sum / 65536;
		sum = sum % 65536 + sum / 65536;
		snap[10] = ~sum >> 8 & 0xff;
		snap[11] = ~sum & 0xff;
		sum = 0;
	}
	if (icmp_unreachable_build(snap, size, buf, &len, &dst) == 0) {
		if (len < 8 + 20 || len > ICMP_MSG_MAX || len > size + 8 ||
		    memcmp(buf + 8, snap, len - 8) || memcmp(&dst, snap + 12, 4) || buf[0] != 3 ||
		    buf[1] != 13)
			abort();
		for (size_t i = 0; i < len; i++)
			sum += i % 2 ? buf[i] : buf[i] * 256u;
		while (sum > 0xffff)
			sum = sum % 65536 + sum / 65536;
		if (sum != 0xffff)
			abort();
	}
	free(snap);
	free(buf);
	return 0;
}
