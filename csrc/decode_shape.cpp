#include "decode_shape.h"

namespace em {
namespace {

bool is_structural(uint8_t c) {
    return c == ',' || c == ':' || c == '{' || c == '}' || c == '[' || c == ']';
}

} // namespace

void Shapes::clear() {
    Step nowhere{};
    nowhere.text[0] = 1; /* outside of its mask */
    nowhere.parent = nowhere.other = nowhere.next = NOWHERE;
    steps_.assign(FIRST + 1, nowhere);
    shapes_.assign(1, {}); /* so that no shape has the number NOWHERE */
}

void Shapes::take_out(uint16_t parent, uint16_t number) {
    uint16_t *link = &steps_[parent].next;
    while (*link != number)
        link = &steps_[*link].other;
    *link = steps_[number].other;
}

void Shapes::put_first(uint16_t parent, uint16_t number) {
    steps_[number].other = steps_[parent].next;
    steps_[parent].next = number;
}

/* The step after `parent` that fits, which becomes the first; 0 when none does. */
uint16_t Shapes::find(uint16_t parent, const uint8_t *at) {
    uint16_t number = steps_[parent].next;
    while (number != NOWHERE && !steps_[number].fits(at))
        number = steps_[number].other;
    if (number == NOWHERE)
        return 0;
    take_out(parent, number);
    put_first(parent, number);
    return number;
}

/* The step after `parent` that is like `wanted`, added when there is none; the one longest unused gives way. */
uint16_t Shapes::follow(uint16_t parent, const Step &wanted) {
    size_t alternatives = 0;
    uint16_t number = steps_[parent].next, last = NOWHERE;
    for (; number != NOWHERE; number = steps_[number].other) {
        const Step &step = steps_[number];
        bool same = std::memcmp(step.text, wanted.text, sizeof step.text) == 0 &&
                    std::memcmp(step.mask, wanted.mask, sizeof step.mask) == 0;
        if (same && step.value == wanted.value) {
            take_out(parent, number);
            put_first(parent, number);
            return number;
        }
        last = number;
        alternatives++;
    }
    if (alternatives == ALTERNATIVES_MAX) {
        take_out(parent, last);
        steps_[last].parent = NOWHERE;
    }
    number = (uint16_t)(steps_.size() - 1);
    steps_.push_back(Step(steps_[number]));
    steps_[number] = wanted;
    steps_[number].parent = parent;
    steps_[number].next = NOWHERE;
    put_first(parent, number);
    return number;
}

/* The steps of the event; false when there is white space where matching looks for none. */
bool Shapes::cut(const uint8_t *body, const uint32_t *t, const uint32_t *end, const std::vector<uint32_t> &constants,
                 std::vector<Step> &path) {
    uint32_t begin = *t;
    const uint32_t *first = t;
    auto constant = constants.begin();
    auto add = [&](uint32_t to, Value value) {
        for (;; begin += STEP_BYTES) {
            Step step{};
            bool whole = to - begin <= STEP_BYTES;
            size_t length = whole ? to - begin : STEP_BYTES;
            std::memcpy(step.text, body + begin, length);
            std::memset(step.mask, 0xFF, length);
            step.value = whole ? value : Value::none;
            step.tokens = whole ? (uint16_t)(t - first) : 0;
            path.push_back(step);
            if (whole)
                return;
        }
    };
    while (t < end) {
        uint32_t at = *t++;
        bool string = body[at] == '"';
        if (is_structural(body[at]) || (string && body[*t] == ':'))
            continue;
        uint32_t value_end = *t - string;
        if (string ? body[value_end] != '"' : body[value_end - 1] <= ' ')
            return false;
        if (constant != constants.end() && *constant == at) {
            ++constant;
            continue;
        }
        add(at + string, string ? Value::string : Value::scalar);
        first = t;
        begin = value_end;
    }
    add(end[-1] + 1, Value::end);
    return true;
}

void Shapes::learn(const Walker &walker, const uint32_t *t, const uint32_t *end, Shape &&shape) {
    std::vector<Step> path;
    learned_++;
    if (std::memchr(walker.body + *t, '\\', end[-1] - *t) || !cut(walker.body, t, end, shape.constants, path))
        return;
    if (steps_.size() + path.size() > STEPS_MAX)
        clear();
    if (steps_.size() + path.size() > STEPS_MAX)
        return;
    uint16_t number = ROOT;
    for (const Step &step : path)
        number = follow(number, step);
    if (steps_[number].next == NOWHERE) {
        steps_[number].next = (uint16_t)shapes_.size();
        shapes_.push_back(std::move(shape));
    }
}

} // namespace em
