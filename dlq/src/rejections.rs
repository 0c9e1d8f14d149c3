//! Records rejections in bounded space: hourly counts, and the last samples of each kind.

use hookmill_core::params;
use hookmill_core::report::Report;
use hookmill_core::store::Statement;
use hookmill_core::time::Timestamp;

/// The number of samples that are kept for each source and reason; a flood of one kind does not displace another.
pub const SAMPLES_KEPT: u32 = 20;

const HOUR_MS: i64 = 3_600_000;
/// The time for which counts are kept.
const COUNTS_KEPT_MS: i64 = 90 * 24 * HOUR_MS;

const COUNT: &str = "\
-- count rejections
INSERT INTO rejection_counts (source, reason, hour, count)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3
FROM jsonb_each(?1)
WHERE true
ON CONFLICT (source, reason, hour) DO UPDATE SET count = count + excluded.count";

const SAMPLE: &str = "\
-- sample rejections
INSERT INTO rejections (source, reason, at, remote, detail, content_length, body_bytes)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
FROM jsonb_each(?1)
WHERE true
ON CONFLICT DO NOTHING";

const FORGET_SAMPLES: &str = "\
-- forget rejections
DELETE FROM rejections WHERE (source, reason, at, remote) IN (
    SELECT source, reason, at, remote FROM (
        SELECT source, reason, at, remote,
            row_number() OVER (PARTITION BY source, reason ORDER BY at DESC, remote) AS place
        FROM rejections
    ) WHERE place > ?1
)";

const FORGET_COUNTS: &str = "\
-- forget counts of rejections
DELETE FROM rejection_counts WHERE hour < ?1";

/// The statements that record reports and remove old ones.
///
/// A report that is delivered twice counts twice: the numbers are for monitoring, not for accounting.
pub fn record_rejections(reports: &[Report], now: Timestamp) -> Vec<Statement> {
    let (mut counts, mut samples) = (Vec::new(), Vec::new());
    for report in reports {
        let hour = report.at.millis() - report.at.millis().rem_euclid(HOUR_MS);
        for tally in &report.rejections {
            let source = tally.source.as_deref().unwrap_or_default();
            let (reason, count) = (tally.reason, i64::try_from(tally.count).unwrap_or(i64::MAX));
            counts.push((source, reason, hour, count));
            samples.extend(tally.samples.iter().map(|sample| {
                (
                    source,
                    reason,
                    sample.at,
                    sample.remote.as_deref().unwrap_or_default(),
                    &sample.detail,
                    sample.content_length,
                    sample.body_bytes,
                )
            }));
        }
    }
    let mut statements = Statement::for_each(COUNT, counts);
    statements.extend(Statement::for_each(SAMPLE, samples));
    statements.push(Statement::new(FORGET_SAMPLES, params![SAMPLES_KEPT]));
    statements.push(Statement::new(FORGET_COUNTS, params![now.millis() - COUNTS_KEPT_MS]));
    statements
}
