/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IPv4 packets that no socket would send.
 *
 *   raw [--count N] [--df] SOURCE DESTINATION PROTOCOL HEX
 *       Sends N packets (default 1) with these addresses, this protocol number, and the bytes HEX after the IP header.
 *       The kernel fills in length and checksum of the IP header, and nothing else. HEX may have blanks.
 *       {"event":"sent","packets":N,"failed":0,"errno":"none"}
 *       failed: what the kernel refused to send, which is also how it tells that a packet was dropped on its way
 *       out; errno is the last reason. Exit status 0 when nothing failed, else 1.
 */
#include "tool.h"

#include <ctype.h>
#include <netinet/ip.h>
#include <unistd.h>

#define PAYLOAD_MAX 1400

static struct in_addr parse_address(const char *what, const char *text)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		die("%s: \"%s\" is not an IPv4 address", what, text);
	return a;
}

static size_t parse_hex(const char *text, uint8_t *ret, size_t size)
{
	size_t n = 0;
	unsigned byte;

	while (*text) {
		if (isspace((unsigned char)*text)) {
			text++;
			continue;
		}
		if (n == size || !isxdigit((unsigned char)text[0]) ||
		    !isxdigit((unsigned char)text[1]) || sscanf(text, "%2x", &byte) != 1)
			die("\"%s\" are not at most %zu bytes in hexadecimal", text, size);
		ret[n++] = (uint8_t)byte;
		text += 2;
	}
	return n;
}

int main(int argc, char **argv)
{
	struct {
		struct iphdr ip;
		uint8_t payload[PAYLOAD_MAX];
	} packet = { .ip = { .version = 4, .ihl = 5, .ttl = 64 } };
	struct sockaddr_in to = { .sin_family = AF_INET };
	uint64_t count = 1, failed = 0;
	const char *why = "none";
	size_t len;
	int i, fd;

	tool_catch_signals();
	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--df"))
			packet.ip.frag_off = htons(IP_DF);
		else if (!strcmp(argv[i], "--count") && i + 1 < argc)
			count = parse_number("--count", argv[++i], 1, 100000000);
		else
			die("raw: unknown option \"%s\", or one without its value", argv[i]);
	}
	if (i + 4 != argc)
		die("usage: raw [--count N] [--df] SOURCE DESTINATION PROTOCOL HEX");
	packet.ip.saddr = parse_address("source", argv[i]).s_addr;
	packet.ip.daddr = parse_address("destination", argv[i + 1]).s_addr;
	packet.ip.protocol = (uint8_t)parse_number("protocol", argv[i + 2], 0, 255);
	len = sizeof(packet.ip) + parse_hex(argv[i + 3], packet.payload, sizeof(packet.payload));
	to.sin_addr.s_addr = packet.ip.daddr;
	fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (fd < 0)
		die("raw socket: %s", strerror(errno));
	for (uint64_t n = 0; n < count && !tool_stopped; n++) {
		if (sendto(fd, &packet, len, 0, (struct sockaddr *)&to, sizeof(to)) < 0) {
			failed++;
			why = errno_name(errno);
		}
	}
	printf("{\"event\":\"sent\",\"packets\":%llu,\"failed\":%llu,\"errno\":\"%s\"}\n",
	       (unsigned long long)count, (unsigned long long)failed, why);
	close(fd);
	return failed ? 1 : 0;
}
