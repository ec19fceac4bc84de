/* One event of a body: its members as slices, the verdict on them, and its row. */
#ifndef EVENTMILL_DECODE_EVENT_H
#define EVENTMILL_DECODE_EVENT_H

#include <cstdint>
#include <memory>
#include <vector>

#include "decode_columns.h"
#include "decode_shape.h"
#include "decode_walk.h"

#pragma GCC visibility push(hidden) /* calls within the kernel need no indirection */
namespace em {

/* The columns of RAW and REJECT, in the order of core/schema.py. */
enum EventColumn : size_t {
    EVENT_ID,
    MESSAGE_ID,
    EVENT,
    TYPE,
    DEVICE_ID,
    ANONYMOUS_ID,
    USER_ID,
    TIMESTAMP,
    ORIGINAL_TIMESTAMP,
    SENT_AT,
    RECEIVED_AT,
    APP_VERSION,
    PLATFORM,
    OS_VERSION,
    DEVICE_MODEL,
    LOCALE,
    PROPERTIES,
    CONTEXT,
    FLAGS,
    EVENT_COLUMNS
};
enum RejectColumn : size_t { REASON, DETAIL, PAYLOAD, REJECTED_AT, REJECT_COLUMNS };

/* The members of an event that have a meaning here. */
enum Field : int {
    UNKNOWN_FIELD = -1,
    F_TYPE,
    F_EVENT,
    F_USER_ID,
    F_ANONYMOUS_ID,
    F_MESSAGE_ID,
    F_TIMESTAMP,
    F_ORIGINAL_TIMESTAMP,
    F_SENT_AT,
    F_CONTEXT,
    F_PROPERTIES,
    F_TRAITS,
    F_NAME,
    F_CATEGORY,
    F_WRITE_KEY,
    FIELDS
};

/* The members of a context that have a column. */
enum DeviceField : size_t { D_ID, D_APP_VERSION, D_PLATFORM, D_OS_VERSION, D_MODEL, D_LOCALE, DEVICE_FIELDS };

struct Context {
    Slot whole;
    Slot fields[DEVICE_FIELDS];
    bool has_unmapped = false, has_batch = false; /* members that we would add */
};

struct Span {
    uint32_t begin, end;
};

enum class Time : uint8_t { missing, invalid, valid };

struct Event {
    Slot fields[FIELDS];
    Context context;
    std::vector<Span> unmapped; /* whole members */
    uint32_t begin, end;
    unsigned depth;
    em_type type;
    Bytes name, user, anonymous, device;
    Time original_state, sent_state;
    int64_t original, sent;
};

/* What events need of the body around them. */
struct Surroundings {
    int64_t received_at;
    em_type type;                     /* of the endpoint */
    const Context *context = nullptr; /* of the envelope, for events without their own */
    size_t contextless = 0;           /* events without their own */
    size_t copied_bytes = 0;          /* of the envelope's context */
    bool in_batch = false;            /* the event's members are not asked for afterwards */
};

struct Verdict {
    int reason; /* 0: a good event, else an em_reject */
    const char *detail;
};

/* The type of that name, and the name of a type (readable for COPY_BYTES beyond its end). */
em_type type_of(Bytes text);
Bytes type_name(em_type type);

/* Bits of FLAGS while a body is being decoded; settled and cleared at its end. */
constexpr int32_t OWN_CONTEXT = 1 << 30, HAS_BATCH_MEMBER = 1 << 29;

class EventDecoder {
  public:
    Walker walker;
    Table<EVENT_COLUMNS> events;
    Table<REJECT_COLUMNS> rejects;

    explicit EventDecoder(const em_decode_limits &limits);

    /* Room for the unescaped texts of a body. */
    void start_body(size_t length);

    /* Decodes the value at token t into a row of events or rejects; gives the token after it, null when it is not
     * JSON.
     */
    const uint32_t *decode(const uint32_t *t, Surroundings &around);

    /* The event last decoded. */
    const Event &last() const {
        return event_;
    }

    const uint32_t *read_context(const uint32_t *t, Context &context);

    /* A string's or number's text, unescaped; no data when it is empty or something else. */
    Bytes text_of(const Slot &slot);

    /* A timestamp given as string or number. */
    Time time_of(const Slot &slot, int64_t &ms);

    /* Fills TIMESTAMP from first_row on. `state` and `sent`: the envelope's sentAt, for events without their own.
     */
    void settle_times(size_t first_row, int64_t received_at, Time state, int64_t sent);

    /* See em_decoder_salt. */
    void salt(uint64_t salt) {
        salt_ = salt;
        derived_ = 0;
    }

    void reset_texts() {
        scratch_used_ = 0;
    }

  private:
    em_decode_limits limits_;
    Event event_;
    std::unique_ptr<uint8_t[]> scratch_;
    size_t scratch_capacity_ = 0, scratch_used_ = 0;
    uint64_t salt_, derived_ = 0;
    Shapes shapes_;

    const uint32_t *read_event(const uint32_t *t);
    void clear_event();
    Slot &slot(uint8_t role);
    void fill_event(const Shape &shape, const uint32_t *t);
    void learn_event(const uint32_t *t, const uint32_t *end);
    Plan plan_event(const uint32_t *t, unsigned depth);
    bool write_plain(const Plan &plan, const uint32_t *t, size_t bytes, int64_t received_at);
    Verdict judge(const Surroundings &around);
    Verdict judge_times();
    void reject(Verdict verdict, int64_t received_at);
    void write_row(Surroundings &around, const Context *context);
    int64_t corrected(size_t row, int64_t received, int32_t &flags);
    int32_t write_id(Bytes text);
    int32_t derive_id(int64_t received_at);
    void write_properties();
    void write_context(const Context *context);
    void unmap(const Slot &slot) {
        event_.unmapped.push_back({slot.name, slot.member_end()});
    }
};

} // namespace em
#pragma GCC visibility pop
#endif
