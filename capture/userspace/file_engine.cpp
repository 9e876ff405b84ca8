// capture/userspace/file_engine.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/userspace/file_engine.h"

#include <algorithm>
#include <cerrno>

#include "classifier/link_type.h"
#include "classifier/region/region_table.h"

namespace egresswatch::capture {

std::expected<std::unique_ptr<FileEngine>, FileError> FileEngine::open(const std::string& path,
                                                                       FlowTableConfig config) {
    auto reader = FileReader::open(path);
    if (!reader) return std::unexpected(reader.error());
    return of(std::move(*reader), std::move(config));
}

std::unique_ptr<FileEngine> FileEngine::of(FileReader reader, FlowTableConfig config) {
    return std::unique_ptr<FileEngine>(new FileEngine(std::move(reader), std::move(config)));
}

std::expected<void, OsError> FileEngine::start(FlowSink& sink) {
    sink_ = &sink;
    return {};
}

void FileEngine::note(const PacketRecord& record) {
    if (!record.has_time) ++progress_.packets_without_time;
    if (record.captured_at < latest_) ++progress_.packets_out_of_order;
    latest_ = std::max(latest_, record.captured_at);
}

std::expected<void, OsError> FileEngine::poll(std::chrono::milliseconds /*timeout*/) {
    if (sink_ == nullptr)
        return std::unexpected(OsError{"poll", "file engine", EINVAL, "start() comes first"});
    if (finished_) return {};
    const auto batch = reader_.next_batch();
    progress_.bytes_read = reader_.offset();
    progress_.bytes_total = reader_.file_bytes();
    if (!batch) {
        damage_ = batch.error();
        finished_ = true;
        return std::unexpected(OsError{damage_->to_string(), "", 0, ""});
    }
    if (batch->empty()) {
        finished_ = true;
        return {};
    }
    inputs_.clear();
    for (const PacketRecord& record : *batch) {
        note(record);
        PacketInput input;
        input.bytes = record.bytes;
        input.wire_bytes = record.wire_bytes;
        input.interface = record.interface;
        input.at_ns = static_cast<std::uint64_t>(record.captured_at.time_since_epoch().count());
        input.link = locate_link(record.link_type, record.bytes);
        if (input.link.start == LinkStart::not_ip && !link_type_supported(record.link_type))
            ++unsupported_[record.link_type];
        inputs_.push_back(input);
    }
    progress_.packets += batch->size();
    table_.account(inputs_, *sink_);
    for (const auto& [link_type, packets] : unsupported_)
        progress_.not_supported[link_type_name(link_type)] = packets;
    return {};
}

void FileEngine::stop() noexcept {
    if (sink_ == nullptr) return;
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
    const auto& described = reader_.interfaces();
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
    snapshot.flow_slots = table_.entries().size();
    return snapshot;
}

}  // namespace egresswatch::capture
