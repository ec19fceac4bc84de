/*
 * JSON text against a compiled JSON Schema, row by row, without making a value of it.
 *
 * The answer is one-sided. A row that passes is valid, for certain; one that does not pass may still be valid, and is
 * for a JSON Schema library to judge. So the kernel knows only the spellings and rules that events have as a rule
 * (numbers of up to 15 digits, strings without escapes where their text matters), and everything beyond them does not
 * pass.
 *
 * Input: each row is one JSON value that a JSON parser has accepted. Other bytes give any answer, but nothing outside
 * the row is read. Ownership: the caller owns every buffer. Thread safety: no state; any number of callers at a time.
 */
#ifndef EVENTMILL_SCHEMA_H
#define EVENTMILL_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bits of em_schema_node.types; EM_JSON_NUMBER takes integers too. */
enum {
    EM_JSON_NULL = 1,
    EM_JSON_BOOLEAN = 2,
    EM_JSON_OBJECT = 4,
    EM_JSON_ARRAY = 8,
    EM_JSON_STRING = 16,
    EM_JSON_NUMBER = 32,
    EM_JSON_INTEGER = 64,
};

/* Bits of em_schema_node.rules. */
enum {
    EM_RULE_LIBRARY = 1,           /* nothing passes: the library judges the row */
    EM_RULE_NUMBER = 2,            /* minimum and maximum count */
    EM_RULE_EXCLUSIVE_MINIMUM = 4, /* the minimum itself is too small */
    EM_RULE_EXCLUSIVE_MAXIMUM = 8,
    EM_RULE_MULTIPLE = 16,   /* an integer must be a multiple of `multiple` */
    EM_RULE_LENGTH = 32,     /* length_min and length_max count */
    EM_RULE_ENUM = 64,       /* the value must be one of the scalars `values` */
    EM_RULE_DEFER = 128,     /* the caller judges a string by its text */
    EM_RULE_DATE_TIME = 256, /* a string must be a date and time of RFC 3339, of those that need no calendar */
    EM_RULE_UUID = 512,
    EM_RULE_EMAIL = 1024,
    EM_RULE_URI = 2048,
    EM_RULE_REPORT = 4096, /* the caller wants the text of a string or a number: it is deferred too */
};

enum { EM_SCHEMA_ANY = -1, EM_SCHEMA_NONE = -2, EM_SCHEMA_DEPTH_MAX = 64, EM_SCHEMA_KEYS_MAX = 64 };

typedef struct em_schema_node {
    double minimum, maximum, multiple;
    uint64_t required; /* bit i: key i must be there */
    uint32_t types, rules;
    uint32_t length_min, length_max; /* of a string, in code points */
    uint32_t items_min, items_max;   /* of an array */
    uint32_t keys, keys_count;       /* of an object: a range of em_schema.keys, at most EM_SCHEMA_KEYS_MAX */
    uint32_t values, values_count;   /* a range of em_schema.values */
    int32_t items;                   /* node of an array's items, or EM_SCHEMA_ANY */
    int32_t additional; /* node of other members, EM_SCHEMA_ANY, or EM_SCHEMA_NONE where there may be none */
} em_schema_node;

/* `length` bytes of em_schema.text at `begin`. */
typedef struct em_schema_key {
    uint32_t begin, length;
    int32_t node; /* or EM_SCHEMA_ANY */
    uint32_t unused;
} em_schema_key;

/* A scalar: a string's text, or a number; null, true and false (EM_JSON_BOOLEAN, number 1 or 0) too. */
typedef struct em_schema_value {
    double number;
    uint32_t type, begin, length, unused;
} em_schema_value;

typedef struct em_schema {
    const em_schema_node *nodes;   /* node 0 is the root */
    const em_schema_key *keys;     /* null where there are none */
    const em_schema_value *values; /* so too */
    const uint8_t *text;
} em_schema;

/* Strings that the caller judges: entry i has the text data[begins[i]:ends[i]] of row rows[i], seen at node nodes[i].
 */
typedef struct em_schema_deferred {
    int32_t *rows, *nodes, *begins, *ends;
    size_t capacity;
} em_schema_deferred;

/*
 * passes[i] = 1 where data[offsets[rows[i]]:offsets[rows[i] + 1]] passes, save for its deferred strings, else 0. Gives
 * the number of deferred strings; a row that finds no room for its own does not pass. `rows` may be null: rows 0 to n
 * - 1.
 */
size_t em_schema_check(const em_schema *schema, const int32_t *offsets, const uint8_t *data, const int32_t *rows,
                       size_t n, uint8_t *passes, em_schema_deferred *deferred);

#ifdef __cplusplus
}
#endif
#endif
