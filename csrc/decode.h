/*
 * JSON bodies of Segment's HTTP Tracking API to Arrow columns, in one pass.
 *
 * A decoder takes many bodies and gives all their events as one batch. Per body: {"batch": [event, ...], "sentAt": ...,
 * "context": ..., "writeKey": ...} in any order, or one event. Every byte of the body is checked as JSON (RFC 8259;
 * depth 1024; finite numbers; no half surrogate pairs). A bad event becomes a row of the rejects with its own bytes; a
 * bad body is one error and leaves nothing behind.
 *
 * Kept raw, as slices of the body: properties and context. What has no column goes into the context: members of the
 * event under "_unmapped", members of the envelope under "_batch" (the envelope's context too, when the event has its
 * own). A client's own member of that name keeps it; ours is "_unmapped_2" or "_batch_2" then. Write keys are never
 * kept.
 *
 * Ownership: the decoder copies the body and keeps nothing of the caller's; em_decoder_finish gives the buffers away
 * under the Arrow C data interface. Thread safety: one caller at a time.
 */
#ifndef EVENTMILL_DECODE_H
#define EVENTMILL_DECODE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif

/* The flags of core/schema.py that the decoder sets. */
enum {
    EM_SENT_AT_MISSING = 1 << 0,
    EM_SENT_AT_ABSURD = 1 << 1,
    EM_TIMESTAMP_MISSING = 1 << 2,
    EM_TIMESTAMP_ABSURD = 1 << 3,
    EM_ID_HASHED = 1 << 4,
    EM_ID_DERIVED = 1 << 5,
};

/* Why an event is rejected, in the order of DECODE_REASONS in core/schema.py. */
typedef enum {
    EM_NOT_AN_OBJECT = 1,
    EM_UNKNOWN_TYPE,
    EM_MISSING_EVENT,
    EM_MISSING_IDENTITY,
    EM_WRONG_FIELD_TYPE,
    EM_BAD_TIMESTAMP,
    EM_EVENT_TOO_LARGE,
    EM_NAME_TOO_LONG,
    EM_TOO_DEEP,
} em_reject;

typedef enum {
    EM_TYPE_NONE = 0, /* the body says it */
    EM_TYPE_TRACK,
    EM_TYPE_SCREEN,
    EM_TYPE_PAGE,
    EM_TYPE_IDENTIFY,
    EM_TYPE_GROUP,
    EM_TYPE_ALIAS,
} em_type;

typedef enum {
    EM_OK = 0,
    EM_NOT_JSON,     /* at byte `offset`, for the reason `what` */
    EM_NOT_A_BATCH,  /* at byte `offset`, for the reason `what` */
    EM_DECODER_FULL, /* a column would pass 1 GiB: finish first */
    EM_NO_MEMORY,
} em_status;

typedef struct {
    size_t event_bytes_max;      /* an event's JSON */
    size_t event_name_bytes_max; /* an event's name, unescaped */
    unsigned depth_max;          /* open containers in an event, itself included; 1000 at most */
    int64_t age_max_ms;          /* an event time further behind its arrival is absurd */
    uint64_t seed;               /* random per process: tells apart equal events without id and time */
} em_decode_limits;

typedef struct {
    size_t accepted, rejected;
    const uint8_t *write_key; /* the body's, or null; valid until the next call */
    size_t write_key_bytes;
    size_t offset; /* of an error */
    const char *what;
} em_decoded;

typedef struct em_decoder em_decoder;

/* The name of the simdjson implementation that finds the tokens (csrc/cpu.h chooses). */
const char *em_decoder_implementation(void);

/* Null when there is no memory. */
em_decoder *em_decoder_new(const em_decode_limits *limits);
void em_decoder_free(em_decoder *decoder);

/* Appends a body's events. `received_at_ms` must be a time of the years 1 to 9999. On an error nothing is appended. */
em_status em_decoder_append(em_decoder *decoder, const uint8_t *body, size_t length, int64_t received_at_ms,
                            em_type type, em_decoded *out);

/* Ids of events without id and time are derived from `salt`, and from how many of them there were since: the same
 * bodies after the same salt get the same ids. Without one they are random, by the limits' seed.
 */
void em_decoder_salt(em_decoder *decoder, uint64_t salt);

/* Takes the rows of the last append back; nothing when there was none since. */
void em_decoder_rollback(em_decoder *decoder);

size_t em_decoder_rows(const em_decoder *decoder);
size_t em_decoder_reject_rows(const em_decoder *decoder);

/* Bytes of all buffered columns. */
size_t em_decoder_nbytes(const em_decoder *decoder);

/* Gives all rows away as two struct arrays (of core/schema.py's RAW and REJECT); the decoder is empty and usable then.
 */
em_status em_decoder_finish(em_decoder *decoder, struct ArrowArray *events, struct ArrowArray *rejects);

#ifdef __cplusplus
}
#endif
#endif
