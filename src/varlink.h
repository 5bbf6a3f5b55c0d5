/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Varlink messages: framing and decoding, without any I/O (https://varlink.org/Method-Call). A
 * message is one JSON object in UTF-8, ended by a NUL byte. Everything here takes bytes that a
 * stranger may have written.
 */
#ifndef VARLINK_H
#define VARLINK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "errtext.h"

#define VARLINK_DEPTH_MAX 16 /* arrays and objects within each other, in what is received */

/* The errors that the protocol itself defines. */
#define VARLINK_SERVICE             "org.varlink.service"
#define VARLINK_INTERFACE_NOT_FOUND VARLINK_SERVICE ".InterfaceNotFound"
#define VARLINK_METHOD_NOT_FOUND    VARLINK_SERVICE ".MethodNotFound"
#define VARLINK_NOT_IMPLEMENTED     VARLINK_SERVICE ".MethodNotImplemented"
#define VARLINK_INVALID_PARAMETER   VARLINK_SERVICE ".InvalidParameter"
#define VARLINK_PERMISSION_DENIED   VARLINK_SERVICE ".PermissionDenied"
#define VARLINK_EXPECTED_MORE       VARLINK_SERVICE ".ExpectedMore"

/*
 * Cuts a stream of bytes into messages. The buffer grows with what arrives, to one message of max
 * bytes and its NUL at most, and is freed when it is empty.
 */
struct varlink_reader {
	char *buf;
	size_t cap;
	size_t begin;   /* first byte not handed out yet */
	size_t end;     /* one past the last byte received */
	size_t scanned; /* bytes from begin on that are known to hold no NUL */
	size_t max;
};

/* max: bytes of the longest message, without its NUL. */
void varlink_reader_init(struct varlink_reader *r, size_t max);
void varlink_reader_done(struct varlink_reader *r);

/*
 * Room to receive into: *ret_len bytes (at least one) at *ret_buf; then tell varlink_reader_fill()
 * how many came. 0; -ENOBUFS when the buffer is full (take messages first; if there is none, one is
 * too long); -ENOMEM.
 */
int varlink_reader_space(struct varlink_reader *r, char **ret_buf, size_t *ret_len);
void varlink_reader_fill(struct varlink_reader *r, size_t len);

/*
 * The next whole message, without its NUL. It stays the reader's, and is valid until the next call
 * of this function or of varlink_reader_space(). 1: there is one. 0: not yet. -EMSGSIZE: it is
 * longer than max, and the stream beyond help.
 */
int varlink_reader_next(struct varlink_reader *r, const char **ret_msg, size_t *ret_len);
/* Would varlink_reader_next() give a message, or -EMSGSIZE? */
bool varlink_reader_ready(struct varlink_reader *r);
/* Is the beginning of a message there, and not its end? */
bool varlink_reader_half(struct varlink_reader *r);

/* A method call. Free with varlink_call_done(). */
struct varlink_call {
	json_t *root;
	const char *method;   /* "interface.Method"; root's. Not checked for form */
	size_t interface_len; /* up to its last dot; 0: none */
	json_t *parameters;   /* an object, root's; never NULL */
	bool oneway;
	bool more;
	bool upgrade;
};

/*
 * Decode a call. 0; -EBADMSG with the reason in err: no JSON, nested too deep, no object, duplicate
 * keys, a keyword of the wrong type, no method. Unknown keywords are let through, as the protocol
 * asks. -ENOMEM.
 */
int varlink_call_decode(const char *msg, size_t len, struct varlink_call *ret, struct errtext *err);
void varlink_call_done(struct varlink_call *c);

/* A reply. Free with varlink_reply_done(). */
struct varlink_reply {
	json_t *root;
	json_t *parameters; /* an object, root's; never NULL */
	const char *error;  /* NULL or the error's full name; root's */
	bool continues;
};

/* Decode a reply; errors as for calls. */
int varlink_reply_decode(const char *msg, size_t len, struct varlink_reply *ret,
			 struct errtext *err);
void varlink_reply_done(struct varlink_reply *r);

/*
 * Encode a call or a reply into new text of *ret_len bytes, the final NUL included; free() it.
 * parameters (may be NULL) stay the caller's. 0; -ENOMEM; -EINVAL for a name that is not UTF-8.
 */
int varlink_call_encode(const char *method, json_t *parameters, bool more, bool oneway, char **ret,
			size_t *ret_len);
int varlink_reply_encode(const char *error, json_t *parameters, bool continues, char **ret,
			 size_t *ret_len);

#endif
