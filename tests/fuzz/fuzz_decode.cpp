/*
 * The decoder on bodies separated by 0x1E; the first byte chooses limits and endpoint (see options_of). For each body:
 *
 * - it is refused as no JSON exactly when the slow reader refuses it; refused, it leaves nothing behind;
 * - every element of the last "batch" is a row of the events or of the rejects, and a reject's payload is its text;
 * - `properties` and `context` are JSON objects, texts are UTF-8, times lie in their years;
 * - appended twice, taken back, or after other bodies to the same decoder, it gives the same columns;
 * - a batch cut into batches of one event each gives the same verdicts and rows.
 */
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "decode.h"
#include "fuzz.h"
#include "slow_json.h"
#include "timestamp.h"

namespace {

constexpr int64_t RECEIVED_AT = 1795400000000;
constexpr char SEPARATOR = '\x1e';
constexpr size_t SPLIT_MAX = 6, BODIES_MAX = 8;

/* The columns of core/schema.py's RAW that are treated by name here. */
enum { EVENT_ID = 0, ORIGINAL_TIMESTAMP = 8, PROPERTIES = 16, CONTEXT = 17, FLAGS = 18, COLUMNS = 19 };
enum { PAYLOAD = 2, REJECT_COLUMNS = 4 };
/* How a column's values lie: 't' text, 'w' text of a dictionary, 'i' ids of 16 bytes, 'l' int64, 'f' int32. */
const char EVENT_FORMATS[] = "itwwtttllllwwwwwttf";
const char REJECT_FORMATS[] = "tttl";

struct Options {
    em_decode_limits limits;
    em_type type;
};

/* Bits 0 to 2 the endpoint's type (7: none), bit 3 small limits. */
Options options_of(uint8_t byte) {
    em_decode_limits limits = {32768, 256, 64, 730LL * 86400000, 1};
    if (byte & 8)
        limits = {300, 12, 5, 86400000, 1};
    return {limits, (byte & 7) == 7 ? EM_TYPE_NONE : (em_type)(byte & 7)};
}

using Decoder = std::unique_ptr<em_decoder, decltype(&em_decoder_free)>;
using Row = std::vector<std::string>;
using Rows = std::vector<Row>;

struct Columns {
    Rows events, rejects;

    bool operator==(const Columns &other) const {
        return events == other.events && rejects == other.rejects;
    }
};

Decoder new_decoder(const Options &options) {
    return Decoder(em_decoder_new(&options.limits), em_decoder_free);
}

bool is_valid(const struct ArrowArray &column, int64_t row) {
    const uint8_t *bits = static_cast<const uint8_t *>(column.buffers[0]);
    return !bits || bits[row >> 3] >> (row & 7) & 1;
}

std::string value_of(const struct ArrowArray &column, char format, int64_t row) {
    if (format == 'w') {
        int64_t number = static_cast<const int32_t *>(column.buffers[1])[row];
        CHECK(number >= 0 && (number < column.dictionary->length || !is_valid(column, row)));
        return is_valid(column, row) ? value_of(*column.dictionary, 't', number) : "";
    }
    if (format == 't') {
        const int32_t *offsets = static_cast<const int32_t *>(column.buffers[1]);
        CHECK(offsets[0] == 0 && offsets[row] <= offsets[row + 1]);
        std::string text(static_cast<const char *>(column.buffers[2]) + offsets[row],
                         (size_t)(offsets[row + 1] - offsets[row]));
        CHECK(is_valid(column, row) || text.empty());
        return text;
    }
    size_t width = format == 'i' ? 16 : format == 'l' ? 8 : 4;
    return std::string(static_cast<const char *>(column.buffers[1]) + (size_t)row * width, width);
}

/* A dictionary has each word once, and none that no row has. */
void check_dictionary(const struct ArrowArray &column) {
    std::set<int32_t> used;
    std::set<std::string> words;
    for (int64_t row = 0; row < column.length; row++)
        if (is_valid(column, row))
            used.insert(static_cast<const int32_t *>(column.buffers[1])[row]);
    for (int64_t number = 0; number < column.dictionary->length; number++)
        words.insert(value_of(*column.dictionary, 't', number));
    CHECK((int64_t)used.size() == column.dictionary->length && words.size() == used.size());
}

/* The rows, each value with a byte before it that says whether it is null. */
Rows rows_of(struct ArrowArray &table, const char *formats, size_t columns) {
    CHECK((size_t)table.n_children == columns);
    Rows rows((size_t)table.length);
    for (size_t i = 0; i < columns; i++) {
        const struct ArrowArray &column = *table.children[i];
        CHECK(column.length == table.length && column.offset == 0);
        int64_t nulls = 0;
        if (formats[i] == 'w')
            check_dictionary(column);
        for (int64_t row = 0; row < table.length; row++) {
            bool valid = is_valid(column, row);
            nulls += !valid;
            rows[(size_t)row].push_back((valid ? "v" : "n") + value_of(column, formats[i], row));
        }
        CHECK(nulls == column.null_count);
    }
    table.release(&table);
    return rows;
}

Columns finish(em_decoder *decoder) {
    struct ArrowArray events, rejects;
    CHECK(em_decoder_finish(decoder, &events, &rejects) == EM_OK);
    CHECK(em_decoder_rows(decoder) == 0 && em_decoder_reject_rows(decoder) == 0 && em_decoder_nbytes(decoder) == 0);
    Columns columns{rows_of(events, EVENT_FORMATS, COLUMNS), rows_of(rejects, REJECT_FORMATS, REJECT_COLUMNS)};
    /* Without id and time an event gets an id of its own. */
    for (Row &row : columns.events) {
        int32_t flags;
        std::memcpy(&flags, row[FLAGS].data() + 1, sizeof flags);
        if ((flags & EM_ID_DERIVED) && row[ORIGINAL_TIMESTAMP][0] == 'n')
            row[EVENT_ID].clear();
    }
    return columns;
}

struct Answer {
    em_status status;
    size_t accepted, rejected;
    std::string write_key;

    bool operator==(const Answer &other) const {
        return status == other.status && accepted == other.accepted && rejected == other.rejected &&
               write_key == other.write_key;
    }
};

Answer append(em_decoder *decoder, std::string_view body, em_type type) {
    fuzz::Exact bytes(body.data(), body.size());
    size_t rows = em_decoder_rows(decoder), rejects = em_decoder_reject_rows(decoder);
    size_t nbytes = em_decoder_nbytes(decoder);
    em_decoded out;
    em_status status = em_decoder_append(decoder, bytes.data(), bytes.size(), RECEIVED_AT, type, &out);
    CHECK(status == EM_OK || status == EM_NOT_JSON || status == EM_NOT_A_BATCH);
    CHECK(em_decoder_rows(decoder) - rows == out.accepted && em_decoder_reject_rows(decoder) - rejects == out.rejected);
    Answer answer = {status, out.accepted, out.rejected, ""};
    if (status == EM_OK) {
        CHECK(out.what == nullptr);
        if (out.write_key)
            answer.write_key.assign(reinterpret_cast<const char *>(out.write_key), out.write_key_bytes);
    } else {
        CHECK(out.accepted == 0 && out.rejected == 0 && out.write_key == nullptr);
        CHECK(em_decoder_nbytes(decoder) == nbytes);
        CHECK(out.what && out.offset <= body.size());
    }
    return answer;
}

void check_values(const Columns &columns) {
    for (const Row &row : columns.events)
        for (size_t i = 0; i < COLUMNS; i++) {
            if (EVENT_FORMATS[i] == 't' || EVENT_FORMATS[i] == 'w')
                CHECK(fuzz::SlowJson::is_utf8(std::string_view(row[i]).substr(1)));
            if (EVENT_FORMATS[i] == 'l') {
                int64_t ms;
                std::memcpy(&ms, row[i].data() + 1, sizeof ms);
                CHECK(row[i][0] == 'n' || (ms >= EM_TIME_MS_MIN && ms <= EM_TIME_MS_MAX));
            }
            if (i == PROPERTIES || i == CONTEXT) {
                fuzz::Json value;
                CHECK(fuzz::SlowJson::read(std::string_view(row[i]).substr(1), value) && value.text[0] == '{');
            }
        }
}

/* The last "batch" when it is an array and the only one of its name, else null. */
const fuzz::Json *batch_of(const fuzz::Json &body, size_t &batches) {
    const fuzz::Json *batch = nullptr;
    batches = 0;
    for (const auto &member : body.members)
        if (member.first == "batch") {
            batch = &member.second;
            batches++;
        }
    return batch && batch->text[0] == '[' ? batch : nullptr;
}

void check_split(const Options &options, std::string_view body, const fuzz::Json &batch, const Columns &whole) {
    std::string_view before = body.substr(0, (size_t)(batch.text.data() - body.data()));
    std::string_view after = body.substr(before.size() + batch.text.size());
    Columns parts;
    for (const fuzz::Json &element : batch.elements) {
        Decoder decoder = new_decoder(options);
        std::string one = std::string(before) + "[" + std::string(element.text) + "]" + std::string(after);
        Answer answer = append(decoder.get(), one, options.type);
        CHECK(answer.status == EM_OK && answer.accepted + answer.rejected == 1);
        Columns found = finish(decoder.get());
        parts.events.insert(parts.events.end(), found.events.begin(), found.events.end());
        parts.rejects.insert(parts.rejects.end(), found.rejects.begin(), found.rejects.end());
    }
    CHECK(parts == whole);
}

void check_rejects(const fuzz::Json &batch, const Columns &columns) {
    size_t at = 0;
    for (const Row &row : columns.rejects) {
        std::string_view payload = std::string_view(row[PAYLOAD]).substr(1);
        while (at < batch.elements.size() && batch.elements[at].text != payload)
            at++;
        CHECK(at++ < batch.elements.size());
    }
}

Columns check_body(const Options &options, std::string_view body, Answer &answer) {
    Decoder decoder = new_decoder(options);
    fuzz::Json value;
    bool is_json = fuzz::SlowJson::read(body, value);
    answer = append(decoder.get(), body, options.type);
    CHECK((answer.status != EM_NOT_JSON) == is_json);
    if (answer.status != EM_OK) {
        CHECK(finish(decoder.get()) == Columns{});
        return {};
    }
    CHECK(value.text[0] == '{');
    /* Taken back it leaves nothing, and a second time comes what came first. */
    em_decoder_rollback(decoder.get());
    CHECK(em_decoder_rows(decoder.get()) == 0 && em_decoder_reject_rows(decoder.get()) == 0);
    CHECK(em_decoder_nbytes(decoder.get()) == 0);
    CHECK(append(decoder.get(), body, options.type) == answer);
    Columns once = finish(decoder.get());
    CHECK(once.events.size() == answer.accepted && once.rejects.size() == answer.rejected);
    check_values(once);
    size_t batches;
    const fuzz::Json *batch = options.type == EM_TYPE_NONE ? batch_of(value, batches) : nullptr;
    if (!batch) {
        CHECK(answer.accepted + answer.rejected == 1);
        return once;
    }
    CHECK(answer.accepted + answer.rejected == batch->elements.size());
    check_rejects(*batch, once);
    if (batches == 1 && batch->elements.size() > 1 && batch->elements.size() <= SPLIT_MAX)
        check_split(options, body, *batch, once);
    return once;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    Options options = options_of(data[0]);
    std::string_view rest(reinterpret_cast<const char *>(data) + 1, size - 1);
    Decoder together = new_decoder(options);
    Columns expected;
    for (size_t bodies = 0; bodies < BODIES_MAX; bodies++) {
        size_t end = rest.find(SEPARATOR);
        std::string_view body = rest.substr(0, end);
        Answer answer;
        Columns columns = check_body(options, body, answer);
        for (int twice = 0; twice < 2; twice++) {
            CHECK(append(together.get(), body, options.type) == answer);
            expected.events.insert(expected.events.end(), columns.events.begin(), columns.events.end());
            expected.rejects.insert(expected.rejects.end(), columns.rejects.begin(), columns.rejects.end());
        }
        CHECK(append(together.get(), body, options.type) == answer);
        em_decoder_rollback(together.get());
        if (end == std::string_view::npos)
            break;
        rest.remove_prefix(end + 1);
    }
    CHECK(finish(together.get()) == expected);
    return 0;
}
