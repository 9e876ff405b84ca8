// capture/userspace/classify_pool.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/userspace/classify_pool.h"

#include <utility>

namespace egresswatch::capture {

ClassifyPool::ClassifyPool(PieceReader& reader, std::vector<PacketClassifier> classifiers)
    : reader_(reader),
      classifiers_(std::move(classifiers)),
      places_max_(classifiers_.size() * pieces_a_thread),
      places_(std::make_unique<Place[]>(places_max_)) {
    for (std::uint64_t piece = 0; piece < places_max_; ++piece) places_[piece].turn = 2 * piece;
    for (PacketClassifier& classifier : classifiers_)
        threads_.emplace_back([this, &classifier] { run(classifier); });
}

ClassifyPool::~ClassifyPool() {
    (void)stop();
}

void ClassifyPool::run(PacketClassifier& classifier) {
    for (;;) {
        ClassifiedPiece* filled = nullptr;
        Place* place = nullptr;
        std::uint64_t number = 0;
        {
            const std::lock_guard lock(reading_);
            if (at_end_) return;
            number = next_read_++;
            place = &place_of(number);
            // Until the owner has given back what was there before; it always does, unless it is stopping.
            for (std::uint64_t turn = place->turn; turn != 2 * number; turn = place->turn) {
                if (stopping_) return;
                place->turn.wait(turn);
            }
            if (stopping_) return;
            filled = &place->content;
            reader_.read(filled->piece);
            at_end_ = filled->piece.is_last;
        }
        classifier.classify(filled->piece.batch.packets, filled->batch);
        place->turn = 2 * number + 1;
        place->turn.notify_one();
    }
}

const ClassifiedPiece& ClassifyPool::next() {
    Place& place = place_of(next_taken_);
    for (std::uint64_t turn = place.turn; turn != 2 * next_taken_ + 1; turn = place.turn)
        place.turn.wait(turn);
    return place.content;
}

void ClassifyPool::give_back() {
    Place& place = place_of(next_taken_);
    if (place.content.piece.is_last) return;
    place.turn = 2 * (next_taken_ + places_max_);
    place.turn.notify_one();
    ++next_taken_;
}

std::vector<PacketClassifier> ClassifyPool::stop() {
    stopping_ = true;
    // A thread that waits for room sees `stopping_` when its place's turn changes to a value that is
    // nobody's.
    constexpr std::uint64_t nobody = ~std::uint64_t{0};
    for (std::size_t i = 0; i < places_max_ && !threads_.empty(); ++i) {
        places_[i].turn = nobody;
        places_[i].turn.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return std::move(classifiers_);
}

}  // namespace egresswatch::capture
