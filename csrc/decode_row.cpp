/* From an event's slices to a row of the columns. */
#include <xxhash.h>

#include "decode_event.h"
#include "uuid.h"

namespace em {
namespace {

constexpr int64_t AHEAD_MS_MAX = 60000;
constexpr int64_t SENT_AT_MIN = 946684800000, SENT_AT_MAX = 4102444800000; /* 2000-01-01, 2100-01-01 */

/* Readable for COPY_BYTES beyond its end, like every source of TableBase::place. */
struct Word {
    char text[COPY_BYTES * 2];
    size_t length;

    Bytes bytes() const {
        return {reinterpret_cast<const uint8_t *>(text), length};
    }
};

constexpr Word TYPE_NAMES[] = {
    {"", 0}, {"track", 5}, {"screen", 6}, {"page", 4}, {"identify", 8}, {"group", 5}, {"alias", 5},
};
constexpr Word REASON_NAMES[] = {
    {"", 0},
    {"not_an_object", 13},
    {"unknown_type", 12},
    {"missing_event", 13},
    {"missing_identity", 16},
    {"wrong_field_type", 16},
    {"bad_timestamp", 13},
    {"event_too_large", 15},
    {"name_too_long", 13},
    {"too_deep", 8},
};
constexpr Word NOTHING = {"{}", 2};
constexpr Word UNMAPPED = {"\"_unmapped\":{", 13};
constexpr Word UNMAPPED_2 = {"\"_unmapped_2\":{", 15};

/* Text being written into space that is known to suffice. */
struct Writer {
    uint8_t *at;

    void add(const void *source, size_t length) {
        std::memcpy(at, source, length);
        at += length;
    }
    void add(char c) {
        *at++ = (uint8_t)c;
    }
};

void store_le(uint8_t *to, uint64_t value) {
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

} // namespace

Bytes type_name(em_type type) {
    return TYPE_NAMES[type].bytes();
}

void EventDecoder::reject(Verdict verdict, int64_t received_at) {
    rejects.reserve_row();
    rejects.put(REASON, REASON_NAMES[verdict.reason].bytes());
    size_t length = std::strlen(verdict.detail);
    std::memcpy(rejects.text_space(DETAIL, length), verdict.detail, length);
    rejects.set_text(DETAIL, length);
    rejects.put(PAYLOAD, {walker.body + event_.begin, event_.end - event_.begin});
    rejects.values<int64_t>(REJECTED_AT)[rejects.rows] = received_at;
    rejects.rows++;
}

void EventDecoder::write_row(Surroundings &around, const Context *context) {
    Event &e = event_;
    const Slot *fields = e.fields;
    events.reserve_row();
    const Bytes id = text_of(fields[F_MESSAGE_ID]);
    int32_t flags = id.data ? write_id(id) : derive_id(around.received_at);
    const Word &type = TYPE_NAMES[e.type];
    events.put_word(EVENT, e.type == EM_TYPE_TRACK ? e.name : type.bytes());
    events.put_word(TYPE, type.bytes());
    events.put(DEVICE_ID, e.device);
    events.put_optional(ANONYMOUS_ID, e.anonymous);
    events.put_optional(USER_ID, e.user);
    events.put_time(ORIGINAL_TIMESTAMP, e.original, e.original_state == Time::valid);
    events.put_time(SENT_AT, e.sent, e.sent_state == Time::valid);
    events.values<int64_t>(RECEIVED_AT)[events.rows] = around.received_at;
    static constexpr struct {
        EventColumn column;
        DeviceField field;
    } DEVICE[] = {{APP_VERSION, D_APP_VERSION},
                  {PLATFORM, D_PLATFORM},
                  {OS_VERSION, D_OS_VERSION},
                  {DEVICE_MODEL, D_MODEL},
                  {LOCALE, D_LOCALE}};
    for (const auto &pair : DEVICE)
        events.put_optional_word(pair.column, context ? text_of(context->fields[pair.field]) : Bytes{nullptr, 0});

    /* What has a meaning, but not for this event, is kept with the unknown. */
    if (e.type != EM_TYPE_TRACK && fields[F_EVENT].given())
        unmap(fields[F_EVENT]);
    if (around.type != EM_TYPE_NONE && fields[F_TYPE].given()) {
        Bytes own = walker.slice(fields[F_TYPE]);
        if (own.length != type.length || std::memcmp(own.data, type.text, own.length) != 0)
            unmap(fields[F_TYPE]);
    }
    if (fields[F_ORIGINAL_TIMESTAMP].given() && fields[F_TIMESTAMP].given())
        unmap(fields[F_TIMESTAMP]);
    if (e.sent_state == Time::invalid)
        unmap(fields[F_SENT_AT]);
    bool has_traits = e.type == EM_TYPE_IDENTIFY || e.type == EM_TYPE_GROUP;
    const Slot &other = fields[has_traits ? F_PROPERTIES : F_TRAITS];
    if (other.given())
        unmap(other);
    write_properties();
    write_context(context);

    flags |= e.sent_state == Time::missing ? EM_SENT_AT_MISSING : e.sent_state == Time::invalid ? EM_SENT_AT_ABSURD : 0;
    flags |= e.context.whole.given() ? OWN_CONTEXT : 0;
    flags |= context && context->has_batch ? HAS_BATCH_MEMBER : 0;
    events.values<int32_t>(FLAGS)[events.rows] = flags;
    events.rows++;
    if (context && context != &e.context)
        around.copied_bytes += context->whole.end - context->whole.begin;
}

int32_t EventDecoder::write_id(Bytes text) {
    uint8_t *id = events.values<uint8_t>(EVENT_ID) + events.rows * 16;
    int spelling = em_uuid_parse(text.data, text.length, id);
    events.put_optional(MESSAGE_ID, spelling == 2 ? Bytes{nullptr, 0} : text);
    if (spelling)
        return 0;
    XXH128_canonicalFromHash(reinterpret_cast<XXH128_canonical_t *>(id), XXH3_128bits(text.data, text.length));
    return EM_ID_HASHED;
}

int32_t EventDecoder::derive_id(int64_t received_at) {
    uint8_t *id = events.values<uint8_t>(EVENT_ID) + events.rows * 16;
    events.put_optional(MESSAGE_ID, {nullptr, 0});
    const uint8_t *raw = walker.body + event_.begin;
    size_t length = event_.end - event_.begin;
    XXH128_hash_t hash;
    if (event_.original_state == Time::valid) {
        hash = XXH3_128bits(raw, length);
    } else {
        /* Nothing tells a resent event from one that happened twice: losing neither outranks finding the duplicate. */
        uint8_t salt[24];
        store_le(salt, (uint64_t)received_at);
        store_le(salt + 8, salt_);
        store_le(salt + 16, derived_++);
        hash = XXH3_128bits_withSeed(salt, sizeof salt, XXH3_64bits(raw, length));
    }
    XXH128_canonicalFromHash(reinterpret_cast<XXH128_canonical_t *>(id), hash);
    return EM_ID_DERIVED;
}

void EventDecoder::write_properties() {
    Event &e = event_;
    bool has_traits = e.type == EM_TYPE_IDENTIFY || e.type == EM_TYPE_GROUP;
    bool has_title = e.type == EM_TYPE_SCREEN || e.type == EM_TYPE_PAGE;
    const Slot &own = e.fields[has_traits ? F_TRAITS : F_PROPERTIES];
    bool filled = own.given() && !walker.empty(own);
    const Slot *added[2];
    size_t count = 0, added_bytes = 0;
    for (Field field : {F_NAME, F_CATEGORY}) {
        const Slot &slot = e.fields[field];
        if (!slot.given())
            continue;
        Bytes name = field == F_NAME ? Bytes{reinterpret_cast<const uint8_t *>("name"), 4}
                                     : Bytes{reinterpret_cast<const uint8_t *>("category"), 8};
        if (!has_title || (filled && walker.has_member(own, name))) {
            unmap(slot);
            continue;
        }
        added[count++] = &slot;
        added_bytes += slot.member_end() - slot.name + 1;
    }
    if (count == 0) {
        events.put(PROPERTIES, filled ? walker.slice(own) : NOTHING.bytes());
        return;
    }
    Bytes rest = filled ? walker.slice(own) : NOTHING.bytes();
    uint8_t *space = events.text_space(PROPERTIES, added_bytes + rest.length);
    Writer writer{space};
    writer.add('{');
    for (size_t i = 0; i < count; i++) {
        writer.add(walker.body + added[i]->name, added[i]->member_end() - added[i]->name);
        if (i + 1 < count || filled)
            writer.add(',');
    }
    writer.add(rest.data + 1, rest.length - 1);
    events.set_text(PROPERTIES, (size_t)(writer.at - space));
}

void EventDecoder::write_context(const Context *context) {
    const std::vector<Span> &spans = event_.unmapped;
    bool filled = context && !walker.empty(context->whole);
    Bytes own = filled ? walker.slice(context->whole) : NOTHING.bytes();
    if (spans.empty()) {
        events.put(CONTEXT, own);
        return;
    }
    const Word &member = context && context->has_unmapped ? UNMAPPED_2 : UNMAPPED;
    size_t length = own.length + member.length + 2;
    for (const Span &span : spans)
        length += span.end - span.begin + 1;
    uint8_t *space = events.text_space(CONTEXT, length);
    Writer writer{space};
    writer.add(own.data, own.length - 1);
    if (filled)
        writer.add(',');
    writer.add(member.text, member.length);
    for (size_t i = 0; i < spans.size(); i++) {
        if (i)
            writer.add(',');
        writer.add(walker.body + spans[i].begin, spans[i].end - spans[i].begin);
    }
    writer.add('}');
    writer.add('}');
    events.set_text(CONTEXT, (size_t)(writer.at - space));
}

/* The event's time by the server's clock: what the phone's clock was off by when it sent is taken out. */
int64_t EventDecoder::corrected(size_t row, int64_t received, int32_t &flags) {
    const bool has_original = events.is_valid(ORIGINAL_TIMESTAMP, row);
    const int64_t original = events.values<int64_t>(ORIGINAL_TIMESTAMP)[row];
    int64_t time = original;
    if (events.is_valid(SENT_AT, row)) {
        int64_t sent = events.values<int64_t>(SENT_AT)[row];
        if (sent < SENT_AT_MIN || sent > SENT_AT_MAX || (has_original && original - sent > AHEAD_MS_MAX))
            flags |= EM_SENT_AT_ABSURD;
        else
            time = original + (received - sent);
    }
    if (!has_original) {
        flags |= EM_TIMESTAMP_MISSING;
        return received;
    }
    if (time > received + AHEAD_MS_MAX || time < received - limits_.age_max_ms) {
        flags |= EM_TIMESTAMP_ABSURD;
        return received;
    }
    return time;
}

void EventDecoder::settle_times(size_t first_row, int64_t received_at, Time state, int64_t sent) {
    for (size_t row = first_row; row < events.rows; row++) {
        int32_t &flags = events.values<int32_t>(FLAGS)[row];
        if ((flags & EM_SENT_AT_MISSING) && state != Time::missing) {
            flags &= ~EM_SENT_AT_MISSING;
            flags |= state == Time::invalid ? EM_SENT_AT_ABSURD : 0;
            events.values<int64_t>(SENT_AT)[row] = state == Time::valid ? sent : 0;
            events.set_valid(SENT_AT, row, state == Time::valid);
        }
        events.values<int64_t>(TIMESTAMP)[row] = corrected(row, received_at, flags);
    }
}

} // namespace em
