// Runs one compiled unit behind a C interface: streams in, streams out, cycles counted.
//
// ports.h (generated) brings the model and three lists:
//   MODEL                        the type of the compiled unit
//   CLOCK, RESET                 its members of these names
//   SOURCES(X), SINKS(X)         X(number, size, payload, valid, ready) for each stream
//   STREAMS                      how many streams there are; their numbers are below it

#include <cstdint>
#include <memory>

#include "ports.h"

namespace {

// A port of either kind of model, to and from 64-bit words, low word first.
#ifdef EXACTUM_VERILATOR

template <typename T>
inline void store(T &port, const uint64_t *words) {
    if constexpr (sizeof(T) <= sizeof(uint64_t)) {
        port = static_cast<T>(words[0]);
    } else {
        for (size_t i = 0; i < sizeof(T) / sizeof(EData); ++i)
            port[i] = static_cast<EData>(words[i / 2] >> 32 * (i % 2));
    }
}

template <typename T>
inline void load(const T &port, uint64_t *words) {
    if constexpr (sizeof(T) <= sizeof(uint64_t)) {
        words[0] = port;
    } else {
        for (size_t i = 0; i < sizeof(T) / sizeof(EData); ++i)
            words[i / 2] = (i % 2 ? words[i / 2] : 0) | static_cast<uint64_t>(port[i]) << 32 * (i % 2);
    }
}

#else

template <size_t Bits>
inline void store(cxxrtl::value<Bits> &port, const uint64_t *words) {
    for (size_t i = 0; i < cxxrtl::value<Bits>::chunks; ++i)
        port.data[i] = static_cast<uint32_t>(words[i / 2] >> 32 * (i % 2));
}

template <size_t Bits>
inline void load(const cxxrtl::value<Bits> &port, uint64_t *words) {
    for (size_t i = 0; i < cxxrtl::value<Bits>::chunks; ++i)
        words[i / 2] = (i % 2 ? words[i / 2] : 0) | static_cast<uint64_t>(port.data[i]) << 32 * (i % 2);
}

template <size_t Bits>
inline void load(const cxxrtl::wire<Bits> &port, uint64_t *words) { load(port.curr, words); }

#endif

template <typename T>
inline void set(T &port, bool level) {
    const uint64_t word = level;
    store(port, &word);
}

template <typename T>
inline bool get(const T &port) {
    uint64_t word = 0;
    load(port, &word);
    return word;
}

constexpr uint64_t NEVER = ~uint64_t(0);

}  // namespace

extern "C" {

// One stream in one call of exactum_run. `stalls`: one byte a draw, not zero to stall, repeated.
struct exactum_stream {
    uint64_t *words;       // payloads to send, or room for those wanted
    uint64_t count;        // how many
    uint64_t done;         // how many were transferred
    const uint8_t *stalls; // null: never stalls
    uint64_t stall_count;
    uint64_t first, last;  // cycles of the first and the last transfer of this call
};

}

namespace {

struct Unit {
#ifdef EXACTUM_VERILATOR
    VerilatedContext context;
    MODEL model{&context};
    void settle() { model.eval(); }
#else
    MODEL model;
    void settle() { model.step(); }
#endif
    uint64_t cycle = 0;
    bool offered[STREAMS] = {};       // valid is up and not yet answered: it stays up
    uint64_t drawn[STREAMS] = {};     // stalls drawn in this call

    void edge() {
        set(model.CLOCK, true);
        settle();
        set(model.CLOCK, false);
        ++cycle;
    }

    bool stalls(const exactum_stream &stream, int number) {
        return stream.stalls && stream.stalls[drawn[number]++ % stream.stall_count];
    }

    void reset() {
#define CLEAR(number, size, payload, valid, ready) set(model.valid, false); offered[number] = false;
        SOURCES(CLEAR)
#undef CLEAR
#define CLEAR(number, size, payload, valid, ready) set(model.ready, false);
        SINKS(CLEAR)
#undef CLEAR
        set(model.CLOCK, false);
        set(model.RESET, true);
        settle();
        for (int i = 0; i < 2; ++i) {
            edge();
            settle();
        }
        set(model.RESET, false);
        settle();
        cycle = 0;
    }

    // Sets every input for this cycle.
    inline void drive(exactum_stream *streams, bool *taking) {
#define DRIVE(number, size, payload, valid, ready)                                    \
        {                                                                              \
            exactum_stream &s = streams[number];                                       \
            if (!offered[number] && s.done < s.count && !stalls(s, number)) {          \
                store(model.payload, s.words + s.done * size);                        \
                offered[number] = true;                                                \
            }                                                                          \
            set(model.valid, offered[number]);                                         \
        }
        SOURCES(DRIVE)
#undef DRIVE
#define DRIVE(number, size, payload, valid, ready)                                    \
        taking[number] = streams[number].done < streams[number].count                  \
                         && !stalls(streams[number], number);                          \
        set(model.ready, taking[number]);
        SINKS(DRIVE)
#undef DRIVE
    }

    // Notes what this cycle transfers; returns how many streams did.
    inline int transfer(exactum_stream *streams, const bool *taking) {
        int moved = 0;
        const auto note = [&](exactum_stream &s) {
            if (!s.done++)
                s.first = cycle;
            s.last = cycle;
            ++moved;
        };
#define MOVE(number, size, payload, valid, ready)                                     \
        if (offered[number] && get(model.ready)) {                                     \
            offered[number] = false;                                                   \
            note(streams[number]);                                                     \
        }
        SOURCES(MOVE)
#undef MOVE
#define MOVE(number, size, payload, valid, ready)                                     \
        if (taking[number] && get(model.valid)) {                                      \
            load(model.payload, streams[number].words + streams[number].done * size); \
            note(streams[number]);                                                     \
        }
        SINKS(MOVE)
#undef MOVE
        return moved;
    }
};

// Whether all wanted outputs were taken; where none is wanted, whether all inputs were accepted.
bool finished(const exactum_stream *streams) {
    bool wanted = false, taken = true, accepted = true;
#define LOOK(number, size, payload, valid, ready)                                     \
    wanted |= streams[number].count != 0;                                              \
    taken &= streams[number].done == streams[number].count;
    SINKS(LOOK)
#undef LOOK
#define LOOK(number, size, payload, valid, ready)                                     \
    accepted &= streams[number].done == streams[number].count;
    SOURCES(LOOK)
#undef LOOK
    return wanted ? taken : accepted;
}

}  // namespace

#pragma GCC visibility push(default)

extern "C" {

uint64_t exactum_streams(void) { return STREAMS; }

void *exactum_open(void) {
    Unit *unit = new Unit;
    unit->reset();
    return unit;
}

void exactum_close(void *handle) { delete static_cast<Unit *>(handle); }

void exactum_reset(void *handle) { static_cast<Unit *>(handle)->reset(); }

// Cycles since the last reset.
uint64_t exactum_cycle(void *handle) { return static_cast<Unit *>(handle)->cycle; }

// 0: finished; 1: `patience` cycles without a transfer; 2: `limit` cycles are over.
int exactum_run(void *handle, exactum_stream *streams, uint64_t patience, uint64_t limit) {
    Unit &unit = *static_cast<Unit *>(handle);
    for (int i = 0; i < STREAMS; ++i) {
        streams[i].done = unit.drawn[i] = 0;
        streams[i].first = streams[i].last = NEVER;
    }
    bool taking[STREAMS] = {};
    uint64_t idle = 0;
    for (uint64_t spent = 0; !finished(streams); ++spent) {
        if (idle == patience)
            return 1;
        if (spent == limit)
            return 2;
        unit.drive(streams, taking);
        unit.settle();
        idle = unit.transfer(streams, taking) ? 0 : idle + 1;
        unit.edge();
    }
    return 0;
}

}

#pragma GCC visibility pop
