//! Proofs, the timeline, exports, the audit log.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Event;

/// How far a consultation has come: its number of events, the last link of its chain, the root of its Merkle tree.
#[derive(ToSchema)]
pub(crate) struct SignedHead {
    space: String,
    consultation: String,
    /// The number of events.
    sequence: u64,
    /// When the last was appended, in microseconds since 1970.
    time: i64,
    chain_hash: String,
    root: String,
    /// The key that signed, where one did.
    #[schema(nullable = false)]
    key_id: Option<String>,
    /// The Ed25519 signature, 128 hexadecimal digits.
    #[schema(nullable = false)]
    signature: Option<String>,
    /// The public key, in answers of `GET …/head`.
    #[schema(nullable = false)]
    public_key: Option<String>,
}

/// Whether a consultation is whole.
#[derive(ToSchema)]
pub(crate) struct Verdict {
    consultation_id: String,
    valid: bool,
    /// Events that are whole.
    events: u64,
    /// The sequence of the first that is not.
    #[schema(nullable = false)]
    first_bad_event: Option<u64>,
    #[schema(nullable = false)]
    fault: Option<String>,
    /// Its head, if it is whole.
    #[schema(nullable = false)]
    head: Option<SignedHead>,
}

/// The proof that an event is part of a consultation.
#[derive(ToSchema)]
pub(crate) struct Receipt {
    event: ReceiptEvent,
    chain: ReceiptLink,
    tree: ReceiptTree,
    head: SignedHead,
}

#[derive(ToSchema)]
struct ReceiptEvent {
    sequence: u64,
    time: i64,
    event_id: Uuid,
    event_type: String,
    /// The metadata as the text that was hashed.
    metadata: String,
    payload: Value,
    audit_hash: String,
}

#[derive(ToSchema)]
struct ReceiptLink {
    before: String,
    link: String,
}

#[derive(ToSchema)]
struct ReceiptTree {
    leaf: String,
    index: u64,
    size: u64,
    /// The hashes beside the path to the root, from below.
    path: Vec<String>,
    root: String,
}

/// A page of sessions.
#[derive(ToSchema)]
pub(crate) struct SessionPage {
    total: u64,
    offset: u64,
    limit: u32,
    sessions: Vec<SessionItem>,
}

#[derive(ToSchema)]
struct SessionItem {
    session_id: String,
    created_at: String,
    /// When it was made in the system that it was imported from; absent where it was not imported.
    #[schema(nullable = false)]
    original_created_at: Option<String>,
    updated_at: String,
    event_count: u64,
    /// Events that lie in sealed archives.
    archived_events: u64,
}

/// A session with its events.
#[derive(ToSchema)]
pub(crate) struct SessionAnswer {
    session_id: String,
    created_at: String,
    updated_at: String,
    event_count: u64,
    returned_count: usize,
    events: Vec<TimelineItem>,
}

#[derive(ToSchema)]
struct TimelineItem {
    event_id: Uuid,
    consultation_id: String,
    sequence: u64,
    timestamp: String,
    /// When it happened, where it was imported and had a time of its own; else absent.
    #[schema(nullable = false)]
    occurred_at: Option<String>,
    event_type: String,
    user_id: Option<String>,
    summary: String,
    payload_bytes: usize,
    audit_hash: String,
    badges: Badges,
}

/// What was checked of an event for this answer.
#[derive(ToSchema)]
struct Badges {
    hash_verified: Badge,
    policy_compliant: Badge,
    redaction_applied: Badge,
    audit_logged: Badge,
}

/// The result of one check.
#[derive(ToSchema)]
enum Badge {
    #[schema(rename = "OK")]
    Ok,
    #[schema(rename = "FAIL")]
    Fail,
    #[schema(rename = "PENDING")]
    Pending,
    #[schema(rename = "N/A")]
    NotApplicable,
}

/// Figures of all sessions.
#[derive(ToSchema)]
pub(crate) struct TimelineStats {
    sessions: u64,
    /// Events of the longest session.
    longest_session: Option<u64>,
    last_session_at: Option<String>,
    events_since_start: u64,
    /// `sqlite` or `postgres`.
    store: String,
}

/// Hashes to compare with what is recorded.
#[derive(ToSchema)]
pub(crate) struct ExpectedHashes {
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<ExpectedHash>,
}

#[derive(ToSchema)]
struct ExpectedHash {
    /// The id of an event or a consultation.
    target_id: String,
    /// 64 hexadecimal digits.
    expected_hash: String,
}

/// The result of a comparison of hashes.
#[derive(ToSchema)]
pub(crate) struct ComparedHashes {
    all_valid: bool,
    items: Vec<ComparedHash>,
    total: usize,
    valid: usize,
    invalid: usize,
    duration_ms: f64,
}

#[derive(ToSchema)]
struct ComparedHash {
    target_id: String,
    valid: bool,
    /// Null where there is no such event or consultation.
    computed_hash: Option<String>,
    expected_hash: String,
    #[schema(rename = "match")]
    matches: bool,
    error: Option<String>,
}

/// A format of an export: Markdown, JSON or CSV.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum ExportFormat {
    Md,
    Json,
    Csv,
}

/// An export that is to be made.
#[derive(ToSchema)]
pub(crate) struct ExportRequest {
    consultation_id: String,
    /// `md` and `json` when absent or empty.
    #[schema(required = false)]
    formats: Vec<ExportFormat>,
    /// Who asks for it.
    user_id: Option<String>,
}

/// An export with its manifest.
#[derive(ToSchema)]
pub(crate) struct ExportAnswer {
    export_id: String,
    manifest: Manifest,
}

/// The files of an export, with their hashes.
#[derive(ToSchema)]
struct Manifest {
    version: u32,
    consultation_id: String,
    files: Vec<ManifestFile>,
    event_count: u64,
    head: SignedHead,
    made_at: String,
    made_by: String,
    tool: String,
    /// SHA-256 of the rest of the manifest in canonical form.
    #[schema(nullable = false)]
    manifest_hash: Option<String>,
}

#[derive(ToSchema)]
struct ManifestFile {
    name: String,
    format: ExportFormat,
    bytes: u64,
    sha256: String,
}

/// Whether an export is unchanged.
#[derive(ToSchema)]
pub(crate) struct CheckedExport {
    valid: bool,
    #[schema(nullable = false)]
    fault: Option<String>,
    files: Vec<CheckedFile>,
}

#[derive(ToSchema)]
struct CheckedFile {
    name: String,
    valid: bool,
    #[schema(nullable = false)]
    fault: Option<String>,
}

/// A page of the audit log, newest first.
#[derive(ToSchema)]
pub(crate) struct AuditPage {
    total: u64,
    offset: u64,
    returned_count: usize,
    logs: Vec<Event>,
}

/// How often each operation was noted.
#[derive(ToSchema)]
pub(crate) struct AuditStats {
    total: u64,
    /// Entries that were counted: the last ones.
    among: usize,
    operations: BTreeMap<String, u64>,
}

/// The operations that are noted.
#[derive(ToSchema)]
pub(crate) struct AuditOperations {
    operations: Vec<String>,
}
