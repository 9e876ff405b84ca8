// capture/userspace/classify_pool.h - several cores read and classify a capture file; one takes what they
// made of it, in the order of the file.
//
// In:       a PieceReader and a classifier for each thread.   Out: classified pieces, in order.
// Threads:  one a classifier; next(), give_back() and stop() from the owner's only.
// Limits:   pieces_a_thread pieces of at most FileReader::batch_max packets wait at a time: 140 kB each, and
// the
//           window of the file that they point into. When all wait the threads do.
// Fails:    never; damage to the file comes as the last piece.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "capture/userspace/piece_reader.h"
#include "classifier/packet_classifier.h"

namespace egresswatch::capture {

struct ClassifiedPiece {
    FilePiece piece;
    ClassifiedBatch batch;
};

class ClassifyPool {
public:
    static constexpr std::size_t pieces_a_thread = 8;

    ClassifyPool(PieceReader& reader, std::vector<PacketClassifier> classifiers);
    ~ClassifyPool();
    ClassifyPool(const ClassifyPool&) = delete;
    ClassifyPool& operator=(const ClassifyPool&) = delete;

    // Waits for the next piece. After the last one: that one again.
    [[nodiscard]] const ClassifiedPiece& next();
    // The piece that next() gave is done with.
    void give_back();
    // Ends the threads. The classifiers have the totals of what they classified, taken or not.
    [[nodiscard]] std::vector<PacketClassifier> stop();

private:
    struct Place {
        std::atomic<std::uint64_t> turn{0};  // 2n: waits to be filled with piece n; 2n + 1: holds it
        ClassifiedPiece content;
    };
    void run(PacketClassifier& classifier);
    [[nodiscard]] Place& place_of(std::uint64_t piece) noexcept { return places_[piece % places_max_]; }

    PieceReader& reader_;
    std::vector<PacketClassifier> classifiers_;
    std::size_t places_max_;
    std::unique_ptr<Place[]> places_;
    std::mutex reading_;  // guards the next three
    std::uint64_t next_read_ = 0;
    bool at_end_ = false;
    std::atomic<bool> stopping_{false};
    std::uint64_t next_taken_ = 0;  // the owner's
    std::vector<std::thread> threads_;
};

}  // namespace egresswatch::capture
