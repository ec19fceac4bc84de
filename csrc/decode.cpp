#include "decode.h"

#include <memory>
#include <new>
#include <simdjson.h>
#include <string>
#include <vector>

#include "cpu.h"
#include "decode_event.h"

namespace em {
namespace {

constexpr size_t BODY_BYTES_MAX = COLUMN_BYTES_MAX;
constexpr size_t ENVELOPE_COPIES_BYTES_MAX = 16 << 20; /* else a small body could ask for gigabytes */
constexpr size_t INDEX_DEPTH = 1;                      /* simdjson's own second stage is not used */

const char *const TOO_MANY_COPIES = "the envelope's members are kept with every event, and that is too much here; put "
                                    "them into the events that need them";

/* The body around the events. */
struct Envelope {
    Slot batch, sent_at, write_key;
    Context context;
    std::vector<Span> unknown;
    uint32_t too_deep = 0; /* where a member beside the events nests too deep; 0: none does */

    bool has_context() const {
        return context.whole.kind == Kind::object;
    }
    /* Tells contexts of one body apart; 0: none. */
    uint32_t context_begin() const {
        return has_context() ? context.whole.begin : 0;
    }
    void clear() {
        batch.kind = sent_at.kind = write_key.kind = context.whole.kind = Kind::none;
        unknown.clear();
        too_deep = 0;
    }
};

/* simdjson's first stage for the process's instructions. Below the best it is named, since simdjson has more levels. */
const simdjson::implementation &structure_finder() {
    static const char *const NAMES[EM_CPU_LEVELS] = {"fallback", "haswell", "icelake"};
    const em_cpu level = em_cpu_level();
    const simdjson::implementation *best = simdjson::get_active_implementation();
    const auto *named = simdjson::get_available_implementations()[NAMES[level]];
    return named && level < em_cpu_choose(nullptr) ? *named : *best;
}

void add_bytes(std::vector<uint8_t> &to, const void *data, size_t length) {
    const uint8_t *from = static_cast<const uint8_t *>(data);
    to.insert(to.end(), from, from + length);
}

} // namespace
} // namespace em

using namespace em;

struct __attribute__((visibility("hidden"))) em_decoder {
  public:
    explicit em_decoder(const em_decode_limits &limits) : decoder_(limits), depth_max_(limits.depth_max) {}

    em_status append(const uint8_t *body, size_t length, int64_t received_at, em_type type, em_decoded &out);
    void rollback();
    void salt(uint64_t salt) {
        decoder_.salt(salt);
    }
    void finish(struct ArrowArray *events, struct ArrowArray *rejects);

    const EventDecoder &decoder() const {
        return decoder_;
    }

  private:
    EventDecoder decoder_;
    unsigned depth_max_;
    size_t first_row_ = 0, first_reject_ = 0; /* where the last append began */
    std::unique_ptr<uint8_t[]> body_;
    size_t length_ = 0, capacity_ = 0;
    std::unique_ptr<simdjson::internal::dom_parser_implementation> index_;
    Envelope envelope_;
    Surroundings around_;
    uint32_t used_context_ = 0;     /* the begin of the envelope's context that the events were decoded with */
    std::vector<uint8_t> tails_[2]; /* the ",_batch" of events without and with a context of their own */
    em_status status_ = EM_OK;

    em_status decode(const uint8_t *body, size_t length, em_type type);
    bool scan(const uint8_t *body, size_t length);
    bool walk_batch();
    bool walk_event();
    bool walk_other();
    bool walk_envelope(bool context_is_known);
    const uint32_t *walk_events(const uint32_t *value);
    const uint32_t *walk_member(const Name &name, const uint32_t *value, bool context_is_known);
    const uint32_t *refuse(size_t at, const char *what);
    bool at_end(const uint32_t *t);
    void settle_times();
    bool append_batch_members();
    void build_tail(std::vector<uint8_t> &tail, bool with_context);
};

const uint32_t *em_decoder::refuse(size_t at, const char *what) {
    status_ = EM_NOT_A_BATCH;
    decoder_.walker.offset = at;
    decoder_.walker.what = what;
    return nullptr;
}

void em_decoder::rollback() {
    decoder_.events.truncate();
    decoder_.rejects.truncate();
}

em_status em_decoder::append(const uint8_t *body, size_t length, int64_t received_at, em_type type, em_decoded &out) {
    out = {};
    first_row_ = decoder_.events.rows;
    first_reject_ = decoder_.rejects.rows;
    decoder_.events.mark();
    decoder_.rejects.mark();
    around_ = {};
    around_.received_at = received_at;
    around_.type = type;
    try {
        status_ = decode(body, length, type);
    } catch (const TooLarge &) {
        status_ = EM_DECODER_FULL;
    } catch (const std::bad_alloc &) {
        status_ = EM_NO_MEMORY;
    }
    if (status_ != EM_OK) {
        rollback();
        out.offset = decoder_.walker.offset;
        out.what = decoder_.walker.what;
        return status_;
    }
    out.accepted = decoder_.events.rows - first_row_;
    out.rejected = decoder_.rejects.rows - first_reject_;
    decoder_.reset_texts();
    if (envelope_.write_key.kind == Kind::string) {
        Bytes key = decoder_.text_of(envelope_.write_key);
        out.write_key = key.data;
        out.write_key_bytes = key.length;
    }
    return EM_OK;
}

em_status em_decoder::decode(const uint8_t *body, size_t length, em_type type) {
    status_ = EM_NOT_JSON;
    envelope_.clear();
    if (length > BODY_BYTES_MAX) {
        refuse(BODY_BYTES_MAX, "the body is larger than 1 GiB; split it");
        return status_;
    }
    if (!scan(body, length))
        return status_;
    const uint8_t *text = decoder_.walker.body;
    bool object = text[*decoder_.walker.again()] == '{';
    bool taken = !object ? walk_other() : type == EM_TYPE_NONE ? walk_batch() : walk_event();
    if (!taken)
        return status_;
    settle_times();
    return append_batch_members() ? EM_OK : status_;
}

/* Copies the body where reading beyond its end is safe, and lists its tokens. */
bool em_decoder::scan(const uint8_t *body, size_t length) {
    if (length + PADDING > capacity_ || !index_) {
        size_t capacity = length + length / 2 + 4096;
        body_.reset(new uint8_t[capacity + PADDING]);
        capacity_ = capacity + PADDING;
        simdjson::error_code error =
            index_ ? index_->set_capacity(capacity)
                   : structure_finder().create_dom_parser_implementation(capacity, INDEX_DEPTH, index_);
        if (error) {
            capacity_ = 0;
            throw std::bad_alloc();
        }
    }
    if (length)
        std::memcpy(body_.get(), body, length);
    std::memset(body_.get() + length, 0, PADDING);
    length_ = length;
    decoder_.start_body(length);
    simdjson::error_code error = index_->stage1(body_.get(), length, simdjson::stage1_mode::regular);
    if (error == simdjson::MEMALLOC)
        throw std::bad_alloc();
    Walker &walker = decoder_.walker;
    walker.start(body_.get(), length, index_->structural_indexes.get());
    if (!error)
        return true;
    walker.offset = locate(body_.get(), length, &walker.what);
    return false;
}

bool em_decoder::at_end(const uint32_t *t) {
    if (t && *t != length_)
        t = decoder_.walker.fail(*t, "something stands behind the end of the JSON value");
    return t != nullptr;
}

bool em_decoder::walk_other() {
    Walker &walker = decoder_.walker;
    Slot root;
    return at_end(walker.read(walker.again(), root)) && refuse(0, "it is not an object");
}

bool em_decoder::walk_event() {
    Walker &walker = decoder_.walker;
    rollback();
    around_.context = nullptr;
    around_.in_batch = false;
    if (!at_end(decoder_.decode(walker.again(), around_)))
        return false;
    if (around_.type == EM_TYPE_NONE && !decoder_.last().fields[F_TYPE].given())
        return refuse(0, "it has neither \"batch\" nor \"type\"");
    envelope_.clear();
    envelope_.write_key = decoder_.last().fields[F_WRITE_KEY];
    return true;
}

bool em_decoder::walk_batch() {
    if (!walk_envelope(false))
        return false;
    if (!envelope_.batch.given())
        return walk_event();
    if (envelope_.batch.kind != Kind::array)
        return refuse(envelope_.batch.begin, "\"batch\" is not an array");
    if (envelope_.too_deep)
        return refuse(envelope_.too_deep,
                      "a member beside \"batch\" nests too deep; flatten it, or raise ingest.depth_max");
    return around_.contextless == 0 || used_context_ == envelope_.context_begin() || walk_envelope(true);
}

/* Events come out with the context known so far; when another turns up behind them, they are decoded once more. */
bool em_decoder::walk_envelope(bool context_is_known) {
    Walker &walker = decoder_.walker;
    envelope_.unknown.clear();
    return at_end(walker.members(walker.again(), [&](Name name, const uint32_t *value) {
        if (name.is("batch"))
            return walk_events(value);
        walker.deepest = walker.depth;
        value = walk_member(name, value, context_is_known);
        if (walker.deepest - walker.depth > depth_max_)
            envelope_.too_deep = name.quote;
        return value;
    }));
}

const uint32_t *em_decoder::walk_events(const uint32_t *value) {
    Walker &walker = decoder_.walker;
    Envelope &e = envelope_;
    rollback();
    around_.context = e.has_context() ? &e.context : nullptr;
    used_context_ = e.context_begin();
    around_.contextless = around_.copied_bytes = 0;
    around_.in_batch = true;
    if (walker.body[*value] != '[')
        return walker.read(value, e.batch);
    e.batch.kind = Kind::array;
    return walker.elements(value, [&](const uint32_t *t) {
        t = decoder_.decode(t, around_);
        bool too_many = around_.copied_bytes > ENVELOPE_COPIES_BYTES_MAX;
        return too_many ? refuse(e.context.whole.begin, TOO_MANY_COPIES) : t;
    });
}

const uint32_t *em_decoder::walk_member(const Name &name, const uint32_t *value, bool context_is_known) {
    Walker &walker = decoder_.walker;
    Envelope &e = envelope_;
    if (name.is("sentAt")) {
        e.sent_at.name = name.quote;
        return walker.read(value, e.sent_at);
    }
    if (name.is("writeKey"))
        return walker.read(value, e.write_key);
    if (name.is("context")) {
        if (context_is_known)
            return walker.skip(value);
        e.context.whole.name = name.quote;
        return decoder_.read_context(value, e.context);
    }
    Slot other;
    uint32_t quote = name.quote;
    value = walker.read(value, other);
    e.unknown.push_back({quote, other.member_end()});
    return value;
}

void em_decoder::settle_times() {
    int64_t sent = 0;
    decoder_.reset_texts();
    Time state = decoder_.time_of(envelope_.sent_at, sent);
    if (state == Time::invalid)
        envelope_.unknown.push_back({envelope_.sent_at.name, envelope_.sent_at.member_end()});
    decoder_.settle_times(first_row_, around_.received_at, state, sent);
}

void em_decoder::build_tail(std::vector<uint8_t> &tail, bool with_context) {
    const uint8_t *body = decoder_.walker.body;
    tail.clear();
    auto add = [&](uint32_t begin, uint32_t end) {
        if (!tail.empty())
            tail.push_back(',');
        add_bytes(tail, body + begin, end - begin);
    };
    for (const Span &span : envelope_.unknown)
        add(span.begin, span.end);
    if (with_context)
        add(envelope_.context.whole.name, envelope_.context.whole.member_end());
}

bool em_decoder::append_batch_members() {
    auto &events = decoder_.events;
    const size_t rows = events.rows - first_row_;
    if (rows == 0)
        return true;
    int32_t *flags = events.values<int32_t>(FLAGS);
    const Slot &context = envelope_.context.whole;
    bool other = context.given() && context.kind != Kind::object;
    build_tail(tails_[0], other);
    build_tail(tails_[1], context.given());
    if (tails_[0].size() + tails_[1].size() > 0) {
        if (tails_[1].size() * rows > ENVELOPE_COPIES_BYTES_MAX)
            return refuse(0, TOO_MANY_COPIES);
        /* Four forms: with our second name when the client's context has the first, without a comma after "{". */
        std::vector<uint8_t> forms[2][2];
        for (int own = 0; own < 2; own++)
            for (int second = 0; second < 2 && !tails_[own].empty(); second++) {
                std::vector<uint8_t> &form = forms[own][second];
                const char *begin = second ? ",\"_batch_2\":{" : ",\"_batch\":{";
                add_bytes(form, begin, std::strlen(begin));
                add_bytes(form, tails_[own].data(), tails_[own].size());
                add_bytes(form, "}}", 2);
            }
        events.replace_ends(CONTEXT, first_row_, [&](size_t row) -> Bytes {
            const auto &form = forms[(flags[row] & OWN_CONTEXT) != 0][(flags[row] & HAS_BATCH_MEMBER) != 0];
            if (form.empty())
                return {nullptr, 0};
            size_t comma = events.text(CONTEXT, row).length == 2;
            return {form.data() + comma, form.size() - comma};
        });
    }
    for (size_t row = first_row_; row < events.rows; row++)
        flags[row] &= ~(OWN_CONTEXT | HAS_BATCH_MEMBER);
    return true;
}

void em_decoder::finish(struct ArrowArray *events, struct ArrowArray *rejects) {
    decoder_.events.hand_over(events);
    first_row_ = 0;
    decoder_.rejects.hand_over(rejects);
    first_reject_ = 0;
}

const char *em_decoder_implementation(void) {
    static const std::string NAME = structure_finder().name();
    return NAME.c_str();
}

em_decoder *em_decoder_new(const em_decode_limits *limits) {
    return new (std::nothrow) em_decoder(*limits);
}

void em_decoder_free(em_decoder *decoder) {
    delete decoder;
}

em_status em_decoder_append(em_decoder *decoder, const uint8_t *body, size_t length, int64_t received_at_ms,
                            em_type type, em_decoded *out) {
    return decoder->append(body, length, received_at_ms, type, *out);
}

void em_decoder_salt(em_decoder *decoder, uint64_t salt) {
    decoder->salt(salt);
}

void em_decoder_rollback(em_decoder *decoder) {
    decoder->rollback();
}

size_t em_decoder_rows(const em_decoder *decoder) {
    return decoder->decoder().events.rows;
}

size_t em_decoder_reject_rows(const em_decoder *decoder) {
    return decoder->decoder().rejects.rows;
}

size_t em_decoder_nbytes(const em_decoder *decoder) {
    return decoder->decoder().events.nbytes() + decoder->decoder().rejects.nbytes();
}

em_status em_decoder_finish(em_decoder *decoder, struct ArrowArray *events, struct ArrowArray *rejects) {
    events->release = nullptr;
    rejects->release = nullptr;
    try {
        decoder->finish(events, rejects);
    } catch (const std::bad_alloc &) {
        return EM_NO_MEMORY;
    }
    return EM_OK;
}
