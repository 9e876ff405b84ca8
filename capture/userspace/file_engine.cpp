// capture/userspace/file_engine.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/userspace/file_engine.h"

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "classifier/link_type.h"
#include "classifier/region/region_table.h"

namespace egresswatch::capture {

std::expected<std::unique_ptr<FileEngine>, FileError> FileEngine::open(const std::string& path,
                                                                       FlowTableConfig config,
                                                                       FileEngineOptions options) {
    auto reader = FileReader::open(path);
    if (!reader) return std::unexpected(reader.error());
    return of(std::move(*reader), std::move(config), options);
}

std::unique_ptr<FileEngine> FileEngine::of(FileReader reader, FlowTableConfig config,
                                           FileEngineOptions options) {
    return std::unique_ptr<FileEngine>(new FileEngine(std::move(reader), std::move(config), options));
}

FileEngine::FileEngine(FileReader reader, FlowTableConfig config, FileEngineOptions options)
    : options_(options),
      reader_(std::move(reader)),
      table_(std::move(config)),
      file_bytes_(reader_.reader().file_bytes()) {
    if (options_.speed > 0) pacer_.emplace(options_.speed);
}

FileEngine::~FileEngine() = default;

std::expected<void, OsError> FileEngine::start(FlowSink& sink) {
    sink_ = &sink;
    const unsigned jobs = std::clamp(options_.jobs, 1u, FileEngineOptions::jobs_max);
    if (jobs == 1 || pacer_) return {};
    std::vector<PacketClassifier> classifiers;
    for (unsigned i = 1; i < jobs; ++i) classifiers.push_back(table_.classifier());
    pool_ = std::make_unique<ClassifyPool>(reader_, std::move(classifiers));
    return {};
}

std::expected<void, OsError> FileEngine::note(const FilePiece& piece) {
    progress_.packets += piece.batch.packets.size();
    progress_.bytes_read = piece.bytes_read;
    progress_.bytes_total = file_bytes_;
    progress_.packets_without_time += piece.batch.without_time;
    progress_.packets_out_of_order += piece.batch.out_of_order;
    for (const auto& [link_type, packets] : piece.batch.unsupported)
        progress_.not_supported[link_type_name(link_type)] += packets;
    finished_ = piece.is_last;
    if (!piece.damage) return {};
    damage_ = piece.damage;
    return std::unexpected(OsError{damage_->to_string(), "", 0, ""});
}

std::expected<void, OsError> FileEngine::poll(std::chrono::milliseconds timeout) {
    if (sink_ == nullptr)
        return std::unexpected(OsError{"poll", "file engine", EINVAL, "start() comes first"});
    if (finished_) return {};
    if (pool_ != nullptr) {
        const ClassifiedPiece& next = pool_->next();
        if (!next.piece.is_last) table_.account_classified(next.batch, next.piece.batch.packets, *sink_);
        auto noted = note(next.piece);
        pool_->give_back();
        return noted;
    }
    if (pacer_) return poll_paced(timeout);
    reader_.read(piece_);
    if (!piece_.is_last) table_.account(piece_.batch.packets, *sink_, piece_.batch.coming);
    return note(piece_);
}

std::expected<void, OsError> FileEngine::poll_paced(std::chrono::milliseconds timeout) {
    const std::vector<PacketInput>& packets = piece_.batch.packets;
    if (piece_done_ == packets.size()) {
        reader_.read(piece_);
        piece_done_ = 0;
        if (auto noted = note(piece_); !noted || finished_) return noted;
    }
    const auto now = Pacer::Clock::now();
    const auto due_at = [&](std::size_t packet) {
        const std::chrono::nanoseconds at(static_cast<std::int64_t>(packets[packet].at_ns));
        return pacer_->due(Pacer::PacketTime(at), now);
    };
    auto due = due_at(piece_done_);
    if (due > now) {
        std::this_thread::sleep_until(std::min(due, now + timeout));
        return {};
    }
    std::size_t end = piece_done_;
    for (; end < packets.size() && due <= now; ++end)
        if (end + 1 < packets.size()) due = due_at(end + 1);
    table_.account(std::span(packets).subspan(piece_done_, end - piece_done_), *sink_);
    piece_done_ = end;
    return {};
}

void FileEngine::stop() noexcept {
    if (sink_ == nullptr) return;
    if (pool_ != nullptr)
        for (PacketClassifier& classifier : pool_->stop()) table_.absorb(std::move(classifier));
    pool_.reset();
    table_.finish(*sink_);
    sink_ = nullptr;
    finished_ = true;
}

std::expected<void, OsError> FileEngine::install_region(const RegionTable& table) {
    table_.install_region(table.block());
    return {};
}

void FileEngine::notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept {
    table_.notify_at(key, bytes_out);
}

TotalsSnapshot FileEngine::totals() const {
    TotalsSnapshot snapshot;
    const auto classes = table_.class_totals();
    snapshot.by_class.assign(classes.begin(), classes.end());
    const auto interfaces = table_.interface_totals();
    const auto& described = reader_.reader().interfaces();
    for (std::size_t i = 0; i < interfaces.size(); ++i) {
        InterfaceStatus status;
        status.name = i < described.size() && !described[i].name.empty() ? described[i].name : "file";
        status.hooked = true;
        status.hook = "file";
        status.totals = interfaces[i];
        snapshot.interfaces.push_back(std::move(status));
    }
    std::copy_n(table_.losses().begin(), snapshot.losses.size(), snapshot.losses.begin());
    snapshot.flows_live = table_.live();
    snapshot.flow_slots = table_.slots();
    return snapshot;
}

}  // namespace egresswatch::capture
