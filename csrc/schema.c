#include "schema.h"

#include <stdbool.h>
#include <string.h>

#include "schema_text.h"

typedef struct {
    const em_schema *schema;
    const uint8_t *data, *at, *end;
    em_schema_deferred *deferred;
    size_t found;
    int32_t row;
} walk;

static bool check_value(walk *w, int32_t number, unsigned depth);

static inline void skip_space(walk *w) {
    while (w->at < w->end && (*w->at == ' ' || *w->at == '\t' || *w->at == '\n' || *w->at == '\r'))
        w->at++;
}

/* The text between the quotes; `at` stands on the first one, and behind the second afterwards. */
static inline bool read_string(walk *w, const uint8_t **begin, const uint8_t **end, bool *plain) {
    const uint8_t *at = w->at + 1;
    *begin = at;
    *plain = true;
    for (; at < w->end && *at != '"'; at++)
        if (*at == '\\') {
            *plain = false;
            if (++at >= w->end)
                return false;
        }
    if (at >= w->end)
        return false;
    *end = at;
    w->at = at + 1;
    return true;
}

static bool skip_value(walk *w) {
    const uint8_t *begin, *end;
    bool plain;
    size_t open = 0;
    do {
        skip_space(w);
        if (w->at >= w->end)
            return false;
        switch (*w->at) {
        case '"':
            if (!read_string(w, &begin, &end, &plain))
                return false;
            break;
        case '{':
        case '[':
            open++;
            w->at++;
            break;
        case '}':
        case ']':
            if (open == 0)
                return false;
            open--;
            w->at++;
            break;
        case ',':
        case ':':
            if (open == 0)
                return false;
            w->at++;
            break;
        default: {
            const uint8_t *first = w->at;
            while (w->at < w->end && *w->at > ' ' && *w->at != ',' && *w->at != '}' && *w->at != ']' && *w->at != ':' &&
                   *w->at != '"')
                w->at++;
            if (w->at == first)
                return false;
        }
        }
    } while (open > 0);
    return true;
}

static bool among(const walk *w, const em_schema_node *node, uint32_t type, double number, const uint8_t *text,
                  size_t length) {
    if (node->values_count == 0)
        return false;
    const em_schema_value *values = w->schema->values + node->values;
    for (uint32_t i = 0; i < node->values_count; i++) {
        if (values[i].type != type)
            continue;
        if (type == EM_JSON_STRING
                ? values[i].length == length && memcmp(w->schema->text + values[i].begin, text, length) == 0
                : values[i].number == number)
            return true;
    }
    return false;
}

static bool defer(walk *w, int32_t number, const uint8_t *begin, const uint8_t *end) {
    em_schema_deferred *deferred = w->deferred;
    if (w->found >= deferred->capacity)
        return false;
    deferred->rows[w->found] = w->row;
    deferred->nodes[w->found] = number;
    deferred->begins[w->found] = (int32_t)(begin - w->data);
    deferred->ends[w->found++] = (int32_t)(end - w->data);
    return true;
}

static bool check_string(walk *w, const em_schema_node *node, int32_t number) {
    const uint32_t reads = EM_RULE_LENGTH | EM_RULE_ENUM | EM_RULE_DEFER | EM_RULE_DATE_TIME | EM_RULE_UUID |
                           EM_RULE_EMAIL | EM_RULE_URI | EM_RULE_REPORT;
    const uint8_t *begin, *end;
    bool plain;
    if (!(node->types & EM_JSON_STRING) || !read_string(w, &begin, &end, &plain))
        return false;
    if (!(node->rules & reads))
        return true;
    size_t length = (size_t)(end - begin);
    if (!plain)
        return false;
    if (node->rules & EM_RULE_LENGTH) {
        size_t points = em_code_points(begin, end);
        if (points < node->length_min || points > node->length_max)
            return false;
    }
    if (node->rules & EM_RULE_ENUM && !among(w, node, EM_JSON_STRING, 0, begin, length))
        return false;
    if (node->rules & EM_RULE_DATE_TIME && !em_is_date_time(begin, length))
        return false;
    if (node->rules & EM_RULE_UUID && !em_is_uuid(begin, length))
        return false;
    if (node->rules & EM_RULE_EMAIL && !em_is_email(begin, length))
        return false;
    if (node->rules & EM_RULE_URI && !em_is_uri(begin, length))
        return false;
    return !(node->rules & (EM_RULE_DEFER | EM_RULE_REPORT)) || defer(w, number, begin, end);
}

static bool check_number(walk *w, const em_schema_node *node, int32_t number) {
    const uint8_t *begin = w->at;
    bool whole = true;
    for (; w->at < w->end; w->at++) {
        uint8_t byte = *w->at;
        if (byte == '.' || byte == 'e' || byte == 'E')
            whole = false;
        else if (!(byte >= '0' && byte <= '9') && byte != '-' && byte != '+')
            break;
    }
    if (!(node->types & (whole ? EM_JSON_NUMBER | EM_JSON_INTEGER : EM_JSON_NUMBER)))
        return false;
    if (!(node->rules & (EM_RULE_NUMBER | EM_RULE_MULTIPLE | EM_RULE_ENUM)))
        return w->at > begin && (!(node->rules & EM_RULE_REPORT) || defer(w, number, begin, w->at));
    double value;
    if (!em_exact_number(begin, w->at, &value))
        return false;
    if (node->rules & EM_RULE_NUMBER) {
        if (node->rules & EM_RULE_EXCLUSIVE_MINIMUM ? !(value > node->minimum) : !(value >= node->minimum))
            return false;
        if (node->rules & EM_RULE_EXCLUSIVE_MAXIMUM ? !(value < node->maximum) : !(value <= node->maximum))
            return false;
    }
    if (node->rules & EM_RULE_MULTIPLE && !(whole && (int64_t)value % (int64_t)node->multiple == 0))
        return false;
    return !(node->rules & EM_RULE_ENUM) || among(w, node, EM_JSON_NUMBER, value, NULL, 0);
}

static bool check_word(walk *w, const em_schema_node *node, const char *word, uint32_t type, double number) {
    size_t length = strlen(word);
    if (!(node->types & type) || (size_t)(w->end - w->at) < length || memcmp(w->at, word, length) != 0)
        return false;
    w->at += length;
    return !(node->rules & EM_RULE_ENUM) || among(w, node, type, number, NULL, 0);
}

static bool check_array(walk *w, const em_schema_node *node, unsigned depth) {
    if (!(node->types & EM_JSON_ARRAY) || node->rules & EM_RULE_ENUM)
        return false;
    size_t items = 0;
    w->at++;
    for (skip_space(w); w->at < w->end && *w->at != ']'; items++) {
        if (!(node->items == EM_SCHEMA_ANY ? skip_value(w) : check_value(w, node->items, depth + 1)))
            return false;
        skip_space(w);
        if (w->at < w->end && *w->at == ',')
            w->at++;
        else if (w->at >= w->end || *w->at != ']')
            return false;
        skip_space(w);
    }
    if (w->at >= w->end)
        return false;
    w->at++;
    return items >= node->items_min && items <= node->items_max;
}

/* The number of the key, or `count`. Members come in the same order as a rule, so `guess` is tried first. */
static uint32_t find_key(const walk *w, const em_schema_key *keys, uint32_t count, uint32_t guess, const uint8_t *text,
                         size_t length) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = guess + i < count ? guess + i : guess + i - count;
        if (keys[number].length == length && memcmp(w->schema->text + keys[number].begin, text, length) == 0)
            return number;
    }
    return count;
}

static bool check_object(walk *w, const em_schema_node *node, unsigned depth) {
    if (!(node->types & EM_JSON_OBJECT) || node->rules & EM_RULE_ENUM)
        return false;
    /* Without members there may be no table of keys. */
    const em_schema_key *keys = node->keys_count ? w->schema->keys + node->keys : NULL;
    uint64_t seen = 0;
    uint32_t guess = 0;
    w->at++;
    for (skip_space(w); w->at < w->end && *w->at != '}';) {
        const uint8_t *begin, *end;
        bool plain;
        /* An escaped key may spell any name. */
        if (*w->at != '"' || !read_string(w, &begin, &end, &plain) || !plain)
            return false;
        skip_space(w);
        if (w->at >= w->end || *w->at++ != ':')
            return false;
        uint32_t key = find_key(w, keys, node->keys_count, guess, begin, (size_t)(end - begin));
        int32_t next = node->additional;
        if (key < node->keys_count) {
            /* Of a name twice the last counts; the library knows. */
            if (seen >> key & 1)
                return false;
            seen |= (uint64_t)1 << key;
            guess = key + 1 < node->keys_count ? key + 1 : 0;
            next = keys[key].node;
        }
        if (next == EM_SCHEMA_NONE || !(next == EM_SCHEMA_ANY ? skip_value(w) : check_value(w, next, depth + 1)))
            return false;
        skip_space(w);
        if (w->at < w->end && *w->at == ',')
            w->at++;
        else if (w->at >= w->end || *w->at != '}')
            return false;
        skip_space(w);
    }
    if (w->at >= w->end)
        return false;
    w->at++;
    return (node->required & ~seen) == 0;
}

static bool check_value(walk *w, int32_t number, unsigned depth) {
    const em_schema_node *node = w->schema->nodes + number;
    skip_space(w);
    if (depth > EM_SCHEMA_DEPTH_MAX || node->rules & EM_RULE_LIBRARY || w->at >= w->end)
        return false;
    switch (*w->at) {
    case '{':
        return check_object(w, node, depth);
    case '[':
        return check_array(w, node, depth);
    case '"':
        return check_string(w, node, number);
    case 't':
        return check_word(w, node, "true", EM_JSON_BOOLEAN, 1);
    case 'f':
        return check_word(w, node, "false", EM_JSON_BOOLEAN, 0);
    case 'n':
        return check_word(w, node, "null", EM_JSON_NULL, 0);
    default:
        return check_number(w, node, number);
    }
}

size_t em_schema_check(const em_schema *schema, const int32_t *offsets, const uint8_t *data, const int32_t *rows,
                       size_t n, uint8_t *passes, em_schema_deferred *deferred) {
    walk w = {.schema = schema, .data = data, .deferred = deferred};
    for (size_t i = 0; i < n; i++) {
        int32_t row = rows ? rows[i] : (int32_t)i;
        size_t before = w.found;
        w.row = (int32_t)i;
        w.at = data + offsets[row];
        w.end = data + offsets[row + 1];
        passes[i] = check_value(&w, 0, 0);
        if (!passes[i])
            w.found = before;
    }
    return w.found;
}
