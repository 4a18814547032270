//! What the demonstration ends with: the received documents in figures.

use crate::document::Document;
use std::fmt;

/// Figures over all received documents.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) frames: usize,
    pub(crate) detections: usize,
    frames_with_detections: usize,
    /// Frames that were captured and never published, told by the gaps in `sequence`.
    dropped: u64,
    /// None with fewer than two frames.
    frames_per_second: Option<f64>,
    inference_ms_median: f64,
    inference_ms_p95: f64,
}

impl Summary {
    /// Sums documents up that came in the order of capture. None without documents.
    pub(crate) fn of(documents: &[Document]) -> Option<Self> {
        let (first, last) = (documents.first()?, documents.last()?);
        let mut inference_ms: Vec<f64> = documents
            .iter()
            .map(|document| document.inference_ms)
            .collect();
        inference_ms.sort_by(f64::total_cmp);
        let span_s = last
            .captured_monotonic_ns
            .saturating_sub(first.captured_monotonic_ns) as f64
            / 1e9;
        Some(Self {
            frames: documents.len(),
            detections: documents
                .iter()
                .map(|document| document.detections.len())
                .sum(),
            frames_with_detections: documents
                .iter()
                .filter(|document| !document.detections.is_empty())
                .count(),
            dropped: (last.sequence + 1).saturating_sub(documents.len() as u64),
            frames_per_second: (span_s > 0.0).then(|| (documents.len() - 1) as f64 / span_s),
            inference_ms_median: quantile(&inference_ms, 0.5),
            inference_ms_p95: quantile(&inference_ms, 0.95),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "frames published    {}", self.frames)?;
        writeln!(
            f,
            "detections          {} in {} frames",
            self.detections, self.frames_with_detections
        )?;
        match self.frames_per_second {
            Some(rate) => writeln!(f, "frames a second     {rate:.1}")?,
            None => writeln!(f, "frames a second     too few frames to tell")?,
        }
        writeln!(f, "frames dropped      {}", self.dropped)?;
        write!(
            f,
            "inference           {:.1} ms median, {:.1} ms at the 95th percentile",
            self.inference_ms_median, self.inference_ms_p95
        )
    }
}

/// The nearest-rank quantile of an ascending, non-empty list.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::document;

    #[test]
    fn gaps_in_the_sequence_are_drops_and_the_rate_is_of_published_frames() {
        // Frames 0 to 10 were captured, one each 100 ms; 0, 4 and 10 were published.
        let documents = [
            document(0, 0, &[0.5, 0.6]),
            document(4, 400, &[]),
            document(10, 1000, &[0.9]),
        ];
        let summary = Summary::of(&documents).expect("there are documents");
        assert_eq!(
            (
                summary.frames,
                summary.detections,
                summary.frames_with_detections
            ),
            (3, 3, 2)
        );
        assert_eq!(summary.dropped, 8);
        assert_eq!(summary.frames_per_second, Some(2.0));
        assert_eq!(
            (summary.inference_ms_median, summary.inference_ms_p95),
            (10.4, 11.0)
        );
    }

    #[test]
    fn every_figure_is_told_with_its_name() {
        let documents = [
            document(0, 0, &[0.5, 0.6]),
            document(4, 400, &[]),
            document(10, 1000, &[0.9]),
        ];
        let summary = Summary::of(&documents).expect("there are documents");
        let told = "\
frames published    3
detections          3 in 2 frames
frames a second     2.0
frames dropped      8
inference           10.4 ms median, 11.0 ms at the 95th percentile";
        assert_eq!(summary.to_string(), told);
    }

    #[test]
    fn one_frame_has_no_rate_and_none_has_no_summary() {
        let summary = Summary::of(&[document(0, 0, &[])]).expect("there is a document");
        assert_eq!(summary.frames_per_second, None);
        assert!(summary.to_string().contains("too few frames"));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.5), 50.0);
        assert_eq!(quantile(&hundred, 0.95), 95.0);
        assert_eq!(quantile(&[7.0], 0.95), 7.0);
    }
}
