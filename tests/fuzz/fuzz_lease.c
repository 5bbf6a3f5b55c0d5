/* SPDX-License-Identifier: BSD-2-Clause */
/* Any sequence of requests, releases, deadlines, undone ticks and changes of slices: the lease table answers as its model does. */
#include <stdint.h>
#include <stdlib.h>

#define MODEL_CHECK(x)           \
	do {                     \
		if (!(x))        \
			abort(); \
	} while (0)
#include "../unit/lease_steps.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each choice is a byte, or two where one is too few. */
static uint32_t pick(struct model *m, uint32_t n)
{
	uint32_t v = 0;

	for (uint32_t many = 1; many < n && m->n_bytes; many *= 256) {
		v = v * 256 + *m->bytes++;
		m->n_bytes--;
	}
	return n ? v % n : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct model m;

	model_new(&m, pick);
	m.bytes = data;
	m.n_bytes = size;
	model_slices(&m);
	while (m.n_bytes)
		model_step(&m);
	model_compare(&m);
	model_undo(&m);
	model_free(&m);
	return 0;
}
