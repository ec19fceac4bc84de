/*
 * Shapes of events that came before, to read the next one by comparing instead of parsing.
 *
 * What one SDK sends repeats: the same members in the same order, with other values. A shape is an event's text without
 * its values, as steps: a literal ({"type":"track","messageId":" or ","anonymousId":" ...) and the value behind it.
 * Matching an event is one comparison of up to STEP_BYTES a step. When all literals match, the event's grammar is
 * proven, and each of its tokens has the role that it had in the shape: a literal decides its own tokens, since it
 * begins outside of a string or at the quote that closes one. What is left to check is what varies: numbers, true,
 * false and null by Walker, and that no string has a backslash. An event that matches nothing is walked, and may be
 * learned.
 *
 * Shapes make a tree, whose branches share their first steps. The steps of a path were mostly learned together and
 * stand in a row, so the next one is guessed to be the next in memory, which no load has to be awaited for; else the
 * alternatives are tried, the one last used first. All is bounded: senders whose events never look alike cost a failed
 * comparison each, and stop the learning.
 */
#ifndef EVENTMILL_DECODE_SHAPE_H
#define EVENTMILL_DECODE_SHAPE_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "decode_walk.h"

#pragma GCC visibility push(hidden) /* calls within the kernel need no indirection */
namespace em {

/* A value of a shape that the decoder wants. Tokens are counted from the event's first. */
struct Role {
    uint8_t slot; /* whose value this is, by the decoder's numbers */
    Kind kind;    /* null, boolean and number stand for each other: their first byte tells them apart */
    uint16_t value, next;
};

/* Where the texts of a plain event are: one that needs no judgement beyond what its shape has settled. Tokens are
 * counted from the event's first; 0: not there. */
struct Plan {
    static constexpr size_t TEXTS = 10;
    bool plain = false;
    uint8_t type = 0;
    uint16_t texts[TEXTS] = {}; /* by the decoder's numbers */
    uint16_t original = 0, sent = 0;
    uint16_t properties = 0, properties_next = 0, context = 0, context_next = 0;
};

struct Shape {
    std::vector<Role> roles;
    std::vector<uint32_t>
        constants; /* where values begin that belong to the shape, ascending; used while it is learned */
    Plan plan;
    unsigned depth = 0;
    uint32_t marks = 0; /* of the decoder */
};

class Shapes {
  public:
    Shapes() {
        clear();
    }

    /* The shape of the event at token t, which then moves behind it; null when none fits. */
    const Shape *match(Walker &walker, const uint32_t *&t) {
        const uint8_t *body = walker.body;
        const uint32_t *token = t;
        uint32_t at = *t;
        for (uint16_t parent = ROOT;;) {
            uint16_t number = parent + 1;
            if (steps_[number].parent != parent || !steps_[number].fits(body + at)) {
                number = find(parent, body + at);
                if (number == NOWHERE)
                    return nullptr;
            }
            const Step &step = steps_[number];
            token += step.tokens;
            switch (step.value) {
            case Value::string:
                at = *token - 1;
                break;
            case Value::scalar:
                at = *token;
                if (!walker.is_scalar(token[-1], at))
                    return nullptr;
                break;
            case Value::none:
                at += STEP_BYTES;
                break;
            case Value::end:
                if (walker.has_backslash(*t, token[-1]))
                    return nullptr;
                matched_++;
                t = token;
                return &shapes_[step.next];
            }
            parent = number;
        }
    }

    /* Whether what was learned so far has been of use. */
    bool eager() const {
        return learned_ < FIRST_LESSONS + matched_ / MATCHES_PER_LESSON;
    }

    /* Takes the shape of a good event, from token t to before token `end`; none of one that could never match. */
    void learn(const Walker &walker, const uint32_t *t, const uint32_t *end, Shape &&shape);

    /* The number of tokens of an event that is learned, at most. */
    static constexpr size_t TOKENS_MAX = 1024;

  private:
    static constexpr size_t STEP_BYTES = 32, STEP_WORDS = STEP_BYTES / 8;
    static constexpr uint16_t NOWHERE = 0, ROOT = 1, FIRST = 2; /* NOWHERE fits nothing and ends every list */
    static constexpr size_t STEPS_MAX = 2048, ALTERNATIVES_MAX = 16;
    static constexpr uint64_t FIRST_LESSONS = 64, MATCHES_PER_LESSON = 8;

    enum class Value : uint8_t { string, scalar, none, end };

    struct Step {
        uint64_t text[STEP_WORDS], mask[STEP_WORDS];
        uint16_t parent;
        uint16_t next;  /* the first of the steps that may follow; at an end, the shape */
        uint16_t other; /* the next alternative to this step */
        uint16_t tokens;
        Value value;

        bool fits(const uint8_t *at) const {
            uint64_t differs = 0;
            for (size_t i = 0; i < STEP_WORDS; i++) {
                uint64_t word;
                std::memcpy(&word, at + 8 * i, sizeof word); /* within the body's PADDING */
                differs |= (word & mask[i]) ^ text[i];
            }
            return differs == 0;
        }
    };
    static_assert(STEP_BYTES <= PADDING, "a comparison may reach beyond the body");

    std::vector<Step> steps_; /* the last one fits nothing: guesses may go one beyond the steps learned */
    std::vector<Shape> shapes_;
    uint64_t matched_ = 0, learned_ = 0;

    void clear();
    static bool cut(const uint8_t *body, const uint32_t *t, const uint32_t *end, const std::vector<uint32_t> &constants,
                    std::vector<Step> &path);
    uint16_t find(uint16_t parent, const uint8_t *at);
    void take_out(uint16_t parent, uint16_t number);
    void put_first(uint16_t parent, uint16_t number);
    uint16_t follow(uint16_t parent, const Step &wanted);
};

} // namespace em
#pragma GCC visibility pop
#endif
