/*
 * Plain events: the way from a known shape to a row without the steps between. What a shape settles (the type, which
 * members there are and of what kind) is judged once, when it is learned; for each event remain lengths and times.
 * Whatever else there is to say about an event goes the general way (decode_event.cpp, decode_row.cpp), which gives the
 * same row for a plain one.
 */
#include "decode_event.h"
#include "timestamp.h"

namespace em {
namespace {

constexpr uint8_t NOTHING[COPY_BYTES * 2] = {'{', '}'};
constexpr Bytes EMPTY = {NOTHING, 2};

/* The texts of a plan. */
enum PlanText : size_t { P_MESSAGE_ID, P_EVENT, P_ANONYMOUS_ID, P_USER_ID, P_DEVICE };
static_assert(P_DEVICE + DEVICE_FIELDS == Plan::TEXTS, "a plan has a text for each column");

} // namespace

Plan EventDecoder::plan_event(const uint32_t *t, unsigned depth) {
    const Event &e = event_;
    Plan plan;
    const em_type type = e.fields[F_TYPE].kind == Kind::string ? type_of(text_of(e.fields[F_TYPE])) : EM_TYPE_NONE;
    const bool has_traits = type == EM_TYPE_IDENTIFY || type == EM_TYPE_GROUP;
    const Slot &properties = e.fields[has_traits ? F_TRAITS : F_PROPERTIES];
    const Slot &context = e.context.whole;
    auto absent = [&](Field field) { return !e.fields[field].given(); };
    bool plain = type != EM_TYPE_NONE && depth <= limits_.depth_max && e.unmapped.empty() &&
                 absent(has_traits ? F_PROPERTIES : F_TRAITS) && absent(F_NAME) && absent(F_CATEGORY) &&
                 (type == EM_TYPE_TRACK || absent(F_EVENT)) && (absent(F_ORIGINAL_TIMESTAMP) || absent(F_TIMESTAMP)) &&
                 (!properties.given() || properties.kind == Kind::object) && context.kind == Kind::object &&
                 !e.context.has_batch;
    auto place = [&](const Slot &slot) {
        plain = plain && (!slot.given() || slot.kind == Kind::string);
        return slot.given() ? (uint16_t)(slot.token - t) : uint16_t(0);
    };
    auto place_container = [&](const Slot &slot, uint16_t &begin, uint16_t &next) {
        if (!slot.given() || walker.empty(slot))
            return;
        begin = (uint16_t)(slot.token - t);
        for (next = begin; t[next] < slot.end; next++)
            ;
    };
    plan.texts[P_MESSAGE_ID] = place(e.fields[F_MESSAGE_ID]);
    plan.texts[P_EVENT] = place(e.fields[F_EVENT]);
    plan.texts[P_ANONYMOUS_ID] = place(e.fields[F_ANONYMOUS_ID]);
    plan.texts[P_USER_ID] = place(e.fields[F_USER_ID]);
    for (size_t i = 0; i < DEVICE_FIELDS; i++)
        plan.texts[P_DEVICE + i] = place(e.context.fields[i]);
    plan.original = place(e.fields[absent(F_TIMESTAMP) ? F_ORIGINAL_TIMESTAMP : F_TIMESTAMP]);
    plan.sent = place(e.fields[F_SENT_AT]);
    place_container(properties, plan.properties, plan.properties_next);
    place_container(context, plan.context, plan.context_next);
    plan.type = type;
    plan.plain = plain;
    return plan;
}

bool EventDecoder::write_plain(const Plan &plan, const uint32_t *t, size_t bytes, int64_t received_at) {
    const uint8_t *body = walker.body;
    auto text = [&](size_t i) -> Bytes {
        const uint32_t *value = t + plan.texts[i];
        size_t length = value[1] - value[0] - 2;
        return plan.texts[i] && length ? Bytes{body + value[0] + 1, length} : Bytes{nullptr, 0};
    };
    auto time = [&](uint16_t place, int64_t &ms) {
        const uint32_t *value = t + place;
        return !place || em_timestamp_parse(body + value[0] + 1, value[1] - value[0] - 2, &ms);
    };
    auto container = [&](uint16_t begin, uint16_t next) {
        return begin ? Bytes{body + t[begin], t[next - 1] + 1 - t[begin]} : EMPTY;
    };
    const Bytes id = text(P_MESSAGE_ID), anonymous = text(P_ANONYMOUS_ID), user = text(P_USER_ID);
    const Bytes own = text(P_DEVICE + D_ID), device = own.data ? own : anonymous.data ? anonymous : user;
    const bool track = plan.type == EM_TYPE_TRACK;
    const Bytes name = track ? text(P_EVENT) : Bytes{nullptr, 0};
    int64_t original = 0, sent = 0;
    if (bytes > limits_.event_bytes_max || !id.data || !device.data || (track && !name.data) ||
        name.length > limits_.event_name_bytes_max || !time(plan.original, original) || !time(plan.sent, sent))
        return false;
    events.reserve(bytes);
    const Bytes type = type_name((em_type)plan.type);
    int32_t flags = write_id(id) | OWN_CONTEXT | (plan.sent ? 0 : EM_SENT_AT_MISSING);
    events.put_word(EVENT, track ? name : type);
    events.put_word(TYPE, type);
    events.place(DEVICE_ID, device);
    events.place_optional(ANONYMOUS_ID, anonymous);
    events.place_optional(USER_ID, user);
    events.put_time(ORIGINAL_TIMESTAMP, original, plan.original);
    events.put_time(SENT_AT, sent, plan.sent);
    events.values<int64_t>(RECEIVED_AT)[events.rows] = received_at;
    static_assert(LOCALE - APP_VERSION == D_LOCALE - D_APP_VERSION, "columns and members are in the same order");
    for (size_t i = D_APP_VERSION; i <= D_LOCALE; i++)
        events.put_optional_word(APP_VERSION + (i - D_APP_VERSION), text(P_DEVICE + i));
    events.place(PROPERTIES, container(plan.properties, plan.properties_next));
    events.place(CONTEXT, container(plan.context, plan.context_next));
    events.values<int32_t>(FLAGS)[events.rows] = flags;
    events.rows++;
    return true;
}

} // namespace em
