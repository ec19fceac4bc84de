#include "decode_event.h"

#include <algorithm>

#include "timestamp.h"

namespace em {
namespace {

template <size_t N> bool same(const uint8_t *data, const char (&literal)[N]) {
    return std::memcmp(data, literal, N - 1) == 0;
}

/* Lengths tell nearly all names apart; one comparison of constant length settles it. */
Field field_of(const Name &name) {
    const uint8_t *data = name.data;
    switch (name.length) {
    case 4:
        return same(data, "type") ? F_TYPE : same(data, "name") ? F_NAME : UNKNOWN_FIELD;
    case 5:
        return same(data, "event") ? F_EVENT : UNKNOWN_FIELD;
    case 6:
        switch (data[0]) {
        case 'u':
            return same(data, "userId") ? F_USER_ID : UNKNOWN_FIELD;
        case 's':
            return same(data, "sentAt") ? F_SENT_AT : UNKNOWN_FIELD;
        default:
            return same(data, "traits") ? F_TRAITS : UNKNOWN_FIELD;
        }
    case 7:
        return same(data, "context") ? F_CONTEXT : UNKNOWN_FIELD;
    case 8:
        return same(data, "category") ? F_CATEGORY : same(data, "writeKey") ? F_WRITE_KEY : UNKNOWN_FIELD;
    case 9:
        return same(data, "messageId") ? F_MESSAGE_ID : same(data, "timestamp") ? F_TIMESTAMP : UNKNOWN_FIELD;
    case 10:
        return same(data, "properties") ? F_PROPERTIES : UNKNOWN_FIELD;
    case 11:
        return same(data, "anonymousId") ? F_ANONYMOUS_ID : UNKNOWN_FIELD;
    case 17:
        return same(data, "originalTimestamp") ? F_ORIGINAL_TIMESTAMP : UNKNOWN_FIELD;
    default:
        return UNKNOWN_FIELD;
    }
}

bool is_text_or_missing(const Slot &slot) {
    return !slot.given() || slot.kind == Kind::string || slot.kind == Kind::number;
}

bool is_object_or_missing(const Slot &slot) {
    return !slot.given() || slot.kind == Kind::object;
}

/* The values of a shape: an event's fields by their own numbers, then these. */
constexpr uint8_t ROLE_DEVICE = FIELDS, ROLE_CONTEXT = ROLE_DEVICE + DEVICE_FIELDS, ROLE_UNMAPPED = ROLE_CONTEXT + 1;
constexpr uint32_t HAS_UNMAPPED = 1, HAS_BATCH = 2; /* marks of a shape */

constexpr Layout EVENT_LAYOUTS[EVENT_COLUMNS] = {
    Layout::id,
    Layout::optional_text,
    Layout::word,
    Layout::word,
    Layout::text,
    Layout::optional_text,
    Layout::optional_text,
    Layout::int64,
    Layout::optional_int64,
    Layout::optional_int64,
    Layout::int64,
    Layout::optional_word,
    Layout::optional_word,
    Layout::optional_word,
    Layout::optional_word,
    Layout::optional_word,
    Layout::text,
    Layout::text,
    Layout::int32,
};
constexpr Layout REJECT_LAYOUTS[REJECT_COLUMNS] = {Layout::text, Layout::text, Layout::text, Layout::int64};

} // namespace

em_type type_of(Bytes text) {
    switch (text.length) {
    case 4:
        return same(text.data, "page") ? EM_TYPE_PAGE : EM_TYPE_NONE;
    case 5:
        return same(text.data, "track")   ? EM_TYPE_TRACK
               : same(text.data, "group") ? EM_TYPE_GROUP
               : same(text.data, "alias") ? EM_TYPE_ALIAS
                                          : EM_TYPE_NONE;
    case 6:
        return same(text.data, "screen") ? EM_TYPE_SCREEN : EM_TYPE_NONE;
    case 8:
        return same(text.data, "identify") ? EM_TYPE_IDENTIFY : EM_TYPE_NONE;
    default:
        return EM_TYPE_NONE;
    }
}

EventDecoder::EventDecoder(const em_decode_limits &limits)
    : events(EVENT_LAYOUTS, limits.seed), rejects(REJECT_LAYOUTS, limits.seed), limits_(limits), salt_(limits.seed) {}

void EventDecoder::start_body(size_t length) {
    /* The texts of an event come from different places of the body, and those of the envelope's context once more. */
    size_t needed = 2 * length + PADDING;
    if (needed > scratch_capacity_) {
        scratch_.reset(new uint8_t[needed + needed / 2]);
        scratch_capacity_ = needed + needed / 2;
    }
    scratch_used_ = 0;
}

Bytes EventDecoder::text_of(const Slot &slot) {
    if (slot.kind != Kind::string && slot.kind != Kind::number)
        return {nullptr, 0};
    Bytes text = walker.slice(slot);
    if (text.length == 0)
        return {nullptr, 0};
    if (slot.kind == Kind::string && slot.escaped) {
        uint8_t *to = scratch_.get() + scratch_used_;
        text = {to, unescape(text, to)};
        scratch_used_ += text.length;
    }
    return text;
}

Time EventDecoder::time_of(const Slot &slot, int64_t &ms) {
    if (!slot.given())
        return Time::missing;
    Bytes text = text_of(slot);
    return text.data && em_timestamp_parse(text.data, text.length, &ms) ? Time::valid : Time::invalid;
}

const uint32_t *EventDecoder::read_context(const uint32_t *t, Context &context) {
    const uint8_t *body = walker.body;
    for (Slot &slot : context.fields)
        slot.kind = Kind::none;
    context.has_unmapped = context.has_batch = false;
    if (body[*t] != '{')
        return walker.read(t, context.whole);
    /* A member given twice counts as its last: `version` of the first "app" is gone when a second one comes. */
    auto inner = [&](const uint32_t *at, auto &&pick) {
        if (body[*at] != '{')
            return walker.skip(at);
        return walker.members(at, [&](Name name, const uint32_t *value) {
            Slot *slot = pick(name);
            return slot ? walker.read(value, *slot) : walker.skip(value);
        });
    };
    Slot *fields = context.fields;
    context.whole.kind = Kind::object;
    context.whole.token = t;
    context.whole.begin = *t;
    t = walker.members(t, [&](Name name, const uint32_t *value) {
        switch (name.length) {
        case 2:
            if (!name.is("os"))
                break;
            fields[D_PLATFORM].kind = fields[D_OS_VERSION].kind = Kind::none;
            return inner(value, [&](const Name &member) -> Slot * {
                return member.is("name") ? &fields[D_PLATFORM] : member.is("version") ? &fields[D_OS_VERSION] : nullptr;
            });
        case 3:
            if (!name.is("app"))
                break;
            fields[D_APP_VERSION].kind = Kind::none;
            return inner(value, [&](const Name &member) -> Slot * {
                return member.is("version") ? &fields[D_APP_VERSION] : nullptr;
            });
        case 6:
            if (name.is("locale"))
                return walker.read(value, fields[D_LOCALE]);
            if (name.is("_batch"))
                context.has_batch = true;
            if (!name.is("device"))
                break;
            fields[D_ID].kind = fields[D_MODEL].kind = Kind::none;
            return inner(value, [&](const Name &member) -> Slot * {
                return member.is("id") ? &fields[D_ID] : member.is("model") ? &fields[D_MODEL] : nullptr;
            });
        case 9:
            if (name.is("_unmapped"))
                context.has_unmapped = true;
            break;
        }
        return walker.skip(value);
    });
    if (t)
        context.whole.end = t[-1] + 1;
    return t;
}

Slot &EventDecoder::slot(uint8_t role) {
    return role < FIELDS          ? event_.fields[role]
           : role == ROLE_CONTEXT ? event_.context.whole
                                  : event_.context.fields[role - ROLE_DEVICE];
}

void EventDecoder::clear_event() {
    for (Slot &slot : event_.fields)
        slot.kind = Kind::none;
    for (Slot &slot : event_.context.fields)
        slot.kind = Kind::none;
    event_.context.whole.kind = Kind::none;
    event_.unmapped.clear();
}

void EventDecoder::fill_event(const Shape &shape, const uint32_t *t) {
    clear_event();
    if (walker.depth + shape.depth > walker.deepest)
        walker.deepest = walker.depth + shape.depth;
    event_.context.has_unmapped = shape.marks & HAS_UNMAPPED;
    event_.context.has_batch = shape.marks & HAS_BATCH;
    for (const Role &role : shape.roles) {
        const uint32_t *value = t + role.value, *next = t + role.next;
        Slot found;
        found.token = value;
        found.kind = role.kind;
        found.name = value[-2];
        found.begin = *value;
        found.end = *next;
        if (role.kind == Kind::string) {
            found.begin++;
            found.end--;
        } else if (role.kind >= Kind::object) {
            found.end = next[-1] + 1;
        } else {
            found.kind = scalar_kind(walker.body[*value]);
        }
        if (role.slot == ROLE_UNMAPPED)
            unmap(found);
        else
            slot(role.slot) = found;
    }
}

void EventDecoder::learn_event(const uint32_t *t, const uint32_t *end) {
    Shape shape;
    shape.depth = walker.deepest - walker.depth;
    shape.marks = (event_.context.has_unmapped ? HAS_UNMAPPED : 0) | (event_.context.has_batch ? HAS_BATCH : 0);
    shape.plan = plan_event(t, shape.depth);
    auto add = [&](uint8_t role, const uint32_t *value, uint32_t value_end) {
        const uint32_t *next = std::lower_bound(value + 1, end, value_end);
        uint8_t c = walker.body[*value];
        Kind kind = c == '"' ? Kind::string : c == '{' ? Kind::object : c == '[' ? Kind::array : Kind::number;
        shape.roles.push_back({role, kind, (uint16_t)(value - t), (uint16_t)(next - t)});
    };
    /* The type decides what the members mean, and null is as good as nothing, so both belong to the shape. */
    for (uint8_t role = 0; role < ROLE_UNMAPPED; role++) {
        const Slot &value = slot(role);
        if (value.kind == Kind::null || (role == F_TYPE && value.kind == Kind::string))
            shape.constants.push_back(*value.token);
        if (value.given())
            add(role, value.token, value.member_end());
    }
    std::sort(shape.constants.begin(), shape.constants.end());
    for (const Span &span : event_.unmapped)
        add(ROLE_UNMAPPED, std::lower_bound(t, end, span.begin) + 2, span.end);
    shapes_.learn(walker, t, end, std::move(shape));
}

const uint32_t *EventDecoder::read_event(const uint32_t *t) {
    clear_event();
    return walker.members(t, [&](Name name, const uint32_t *value) {
        Field field = field_of(name);
        if (field == F_CONTEXT) {
            event_.context.whole.name = name.quote;
            return read_context(value, event_.context);
        }
        if (field != UNKNOWN_FIELD) {
            event_.fields[field].name = name.quote;
            return walker.read(value, event_.fields[field]);
        }
        Slot other;
        value = walker.read(value, other);
        event_.unmapped.push_back({name.quote, other.member_end()});
        return value;
    });
}

const uint32_t *EventDecoder::decode(const uint32_t *t, Surroundings &around) {
    scratch_used_ = 0;
    event_.begin = *t;
    if (walker.body[*t] != '{') {
        Slot other;
        if (!(t = walker.read(t, other)))
            return nullptr;
        event_.end = other.member_end();
        reject({EM_NOT_AN_OBJECT, "an event is not a JSON object; send {\"type\": \"track\", \"event\": ...}"},
               around.received_at);
        return t;
    }
    const unsigned outside = walker.depth;
    walker.deepest = outside;
    const uint32_t *begin = t;
    if (const Shape *shape = shapes_.match(walker, t)) {
        if (shape->plan.plain && around.in_batch && around.type == EM_TYPE_NONE &&
            write_plain(shape->plan, begin, t[-1] + 1 - *begin, around.received_at))
            return t;
        fill_event(*shape, begin);
    } else {
        if (!(t = read_event(t)))
            return nullptr;
        if (shapes_.eager() && t - begin <= (ptrdiff_t)Shapes::TOKENS_MAX)
            learn_event(begin, t);
    }
    event_.end = t[-1] + 1;
    event_.depth = walker.deepest - outside;
    Verdict verdict = judge(around);
    const Context *context = event_.context.whole.given() ? &event_.context : around.context;
    around.contextless += !event_.context.whole.given();
    if (verdict.reason)
        reject(verdict, around.received_at);
    else
        write_row(around, context);
    return t;
}

Verdict EventDecoder::judge(const Surroundings &around) {
    Event &e = event_;
    const Slot *fields = e.fields;
    if (e.end - e.begin > limits_.event_bytes_max)
        return {EM_EVENT_TOO_LARGE, "the event is too large; send less, or raise http.event_bytes_max"};
    if (e.depth > limits_.depth_max)
        return {EM_TOO_DEEP, "the event nests too deep; flatten it, or raise ingest.depth_max"};
    e.type = around.type;
    if (e.type == EM_TYPE_NONE && fields[F_TYPE].kind == Kind::string)
        e.type = type_of(text_of(fields[F_TYPE]));
    if (e.type == EM_TYPE_NONE)
        return {EM_UNKNOWN_TYPE, "type is none of track, screen, page, identify, group, alias"};
    if (!is_text_or_missing(fields[F_USER_ID]))
        return {EM_WRONG_FIELD_TYPE, "userId is neither a string nor a number; send a string"};
    if (!is_text_or_missing(fields[F_ANONYMOUS_ID]))
        return {EM_WRONG_FIELD_TYPE, "anonymousId is neither a string nor a number; send a string"};
    if (!is_text_or_missing(fields[F_MESSAGE_ID]))
        return {EM_WRONG_FIELD_TYPE, "messageId is neither a string nor a number; send a UUID"};
    if (!is_object_or_missing(e.context.whole))
        return {EM_WRONG_FIELD_TYPE, "context is not an object; send {} or leave it out"};
    if (e.type == EM_TYPE_IDENTIFY || e.type == EM_TYPE_GROUP) {
        if (!is_object_or_missing(fields[F_TRAITS]))
            return {EM_WRONG_FIELD_TYPE, "traits is not an object; send {} or leave it out"};
    } else if (!is_object_or_missing(fields[F_PROPERTIES])) {
        return {EM_WRONG_FIELD_TYPE, "properties is not an object; send {} or leave it out"};
    }
    if (e.type == EM_TYPE_TRACK) {
        if (fields[F_EVENT].given() && fields[F_EVENT].kind != Kind::string)
            return {EM_WRONG_FIELD_TYPE, "event is not a string; send the event's name"};
        e.name = text_of(fields[F_EVENT]);
        if (!e.name.data)
            return {EM_MISSING_EVENT, "a track has no event; send the event's name in \"event\""};
        if (e.name.length > limits_.event_name_bytes_max)
            return {EM_NAME_TOO_LONG, "event is too long for a name; put what varies into properties, or raise "
                                      "ingest.event_name_bytes_max"};
    }
    Verdict times = judge_times();
    if (times.reason)
        return times;
    const Context *context = e.context.whole.given() ? &e.context : around.context;
    e.user = text_of(fields[F_USER_ID]);
    e.anonymous = text_of(fields[F_ANONYMOUS_ID]);
    e.device = context ? text_of(context->fields[D_ID]) : Bytes{nullptr, 0};
    if (!e.device.data)
        e.device = e.anonymous.data ? e.anonymous : e.user;
    if (!e.device.data)
        return {EM_MISSING_IDENTITY, "nobody is named; send context.device.id, anonymousId or userId"};
    return {0, nullptr};
}

Verdict EventDecoder::judge_times() {
    Event &e = event_;
    e.original_state = time_of(e.fields[F_ORIGINAL_TIMESTAMP], e.original);
    if (e.original_state == Time::invalid)
        return {EM_BAD_TIMESTAMP, "originalTimestamp is no time; send RFC 3339 like 2026-01-31T12:00:00.000Z"};
    if (e.original_state == Time::missing)
        e.original_state = time_of(e.fields[F_TIMESTAMP], e.original);
    if (e.original_state == Time::invalid)
        return {EM_BAD_TIMESTAMP, "timestamp is no time; send RFC 3339 like 2026-01-31T12:00:00.000Z"};
    e.sent_state = time_of(e.fields[F_SENT_AT], e.sent);
    return {0, nullptr};
}

} // namespace em
