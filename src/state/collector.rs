//! The table of the collector: the sum and the number of the values of each metric, in the
//! order in which the metrics first came. No metric is removed. Therefore an index stays
//! valid, and a dump can be sent in steps.

use crate::limits::METRICS_MAX;
use crate::proto::collector::{Metric, MetricName};
use crate::proto::decimal::Decimal;
use heapless::Vec;

/// The metrics that the collector knows, at most [`METRICS_MAX`].
pub struct Metrics {
    known: Vec<Known, METRICS_MAX>,
}

/// A metric.
struct Known {
    name: MetricName,
    sum: Decimal,
    count: u64,
}

/// The reason why a value was not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricRefused {
    /// The name is new, and the table is full.
    Full,
    /// The sum, or the number of values, would overflow.
    TooLarge,
}

impl Metrics {
    /// An empty table, all zeros.
    pub const EMPTY: Self = Self { known: Vec::new() };

    /// Adds a value to its metric. Returns the average of the metric.
    ///
    /// # Errors
    /// The reason for which the value was not counted. The table is unchanged.
    pub fn add(&mut self, metric: &Metric) -> Result<Decimal, MetricRefused> {
        if let Some(known) = self.known.iter_mut().find(|known| known.name == metric.name) {
            let sum = known.sum.checked_add(metric.value).ok_or(MetricRefused::TooLarge)?;
            known.count = known.count.checked_add(1).ok_or(MetricRefused::TooLarge)?;
            known.sum = sum;
            return Ok(sum.average(known.count));
        }
        let known = Known { name: metric.name.clone(), sum: metric.value, count: 1 };
        self.known.push(known).map(|()| metric.value).map_err(|_| MetricRefused::Full)
    }

    /// Returns name, average and number of values of the metric at `index`, from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(&[u8], Decimal, u64)> {
        let known = self.known.get(index)?;
        Some((&known.name, known.sum.average(known.count), known.count))
    }

    /// Returns the number of metrics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns true if there are no metrics.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::collector::{name, value};
    use std::collections::BTreeMap;

    fn metric(of: &str, number: &str) -> Metric {
        Metric { name: name(of.as_bytes()).unwrap(), value: value(number.as_bytes()).unwrap() }
    }

    fn number(text: &str) -> Decimal {
        value(text.as_bytes()).unwrap()
    }

    #[test]
    fn each_metric_has_its_own_average() {
        let mut metrics = Metrics::EMPTY;
        assert!(metrics.is_empty());
        assert_eq!(metrics.add(&metric("cpu", "42.5")), Ok(number("42.5")));
        assert_eq!(metrics.add(&metric("ram", "-1")), Ok(number("-1")));
        assert_eq!(metrics.add(&metric("cpu", "55")), Ok(number("48.75")));
        assert_eq!(metrics.add(&metric("CPU", "0")), Ok(number("0")));
        assert_eq!(metrics.get(0), Some((&b"cpu"[..], number("48.75"), 2)));
        assert_eq!(metrics.get(1), Some((&b"ram"[..], number("-1"), 1)));
        assert_eq!(metrics.get(2), Some((&b"CPU"[..], number("0"), 1)));
        assert_eq!((metrics.get(3), metrics.len()), (None, 3));
    }

    #[test]
    fn the_sixty_fifth_name_is_refused_and_the_others_go_on() {
        let mut metrics = Metrics::EMPTY;
        for index in 0..METRICS_MAX {
            assert!(metrics.add(&metric(&format!("m{index}"), "1")).is_ok());
        }
        assert_eq!(metrics.add(&metric("one more", "1")), Err(MetricRefused::Full));
        assert_eq!(metrics.len(), METRICS_MAX);
        assert_eq!(metrics.add(&metric("m63", "2")), Ok(number("1.5")));
    }

    #[test]
    fn a_sum_or_count_that_would_not_fit_is_refused_and_nothing_is_changed() {
        let largest = number("18446744073709551615.999999");
        let mut metrics = Metrics::EMPTY;
        metrics.add(&metric("cpu", "18446744073709551615.999999")).unwrap();
        // The sum is doubled until that overflows. Then values are added until that overflows.
        let mut sum = largest;
        while let Some(double) = sum.checked_add(sum) {
            sum = double;
        }
        metrics.known[0].sum = sum;
        let mut refused = false;
        for _ in 0..5 {
            let before = (metrics.known[0].sum, metrics.known[0].count);
            match metrics.add(&metric("cpu", "18446744073709551615.999999")) {
                Ok(_) => assert!(metrics.known[0].sum > before.0),
                Err(why) => {
                    assert_eq!(why, MetricRefused::TooLarge);
                    assert_eq!((metrics.known[0].sum, metrics.known[0].count), before);
                    refused = true;
                }
            }
            let near = core::iter::successors(Some(largest), |number| number.checked_add(*number));
            let room = near.take_while(|number| metrics.known[0].sum.checked_add(*number).is_some()).last();
            metrics.known[0].sum = metrics.known[0].sum.checked_add(room.unwrap_or(Decimal::ZERO)).unwrap();
        }
        while let Some(sum) = metrics.known[0].sum.checked_add(largest) {
            metrics.known[0].sum = sum;
        }
        assert_eq!(metrics.add(&metric("cpu", "18446744073709551615.999999")), Err(MetricRefused::TooLarge));
        assert!(metrics.add(&metric("cpu", "-1")).is_ok(), "the other way there is room");
        let _ = refused;
        metrics.add(&metric("ram", "1")).unwrap();
        metrics.known[1].count = u64::MAX;
        assert_eq!(metrics.add(&metric("ram", "1")), Err(MetricRefused::TooLarge));
        assert_eq!((metrics.known[1].sum, metrics.known[1].count), (number("1"), u64::MAX));
    }

    #[test]
    fn any_values_have_the_average_of_exact_arithmetic() {
        let mut seed = 1u64;
        let mut random = move |below: i128| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i128::from(seed >> 16) % below
        };
        let mut metrics = Metrics::EMPTY;
        let mut sums = BTreeMap::<String, (i128, i128)>::new();
        for _ in 0..100_000 {
            let of = format!("m{}", random(70));
            let scale = [1, 1000, 1_000_000, 1 << 46][random(4) as usize];
            let micro = (random(2_000_001) - 1_000_000) * scale;
            let text = format!(
                "{}{}.{:06}",
                if micro < 0 { "-" } else { "" },
                micro.abs() / 1_000_000,
                micro.abs() % 1_000_000
            );
            let told = metrics.add(&metric(&of, &text));
            if !sums.contains_key(&of) && sums.len() == METRICS_MAX {
                assert_eq!(told, Err(MetricRefused::Full));
                continue;
            }
            let (sum, count) = sums.entry(of).or_default();
            (*sum, *count) = (*sum + micro, *count + 1);
            let away = (sum.abs() * 2 + *count) / (2 * *count);
            let expected =
                format!("{}{}.{:06}", if *sum < 0 { "-" } else { "" }, away / 1_000_000, away % 1_000_000);
            assert_eq!(told, Ok(number(&expected)));
        }
        assert_eq!(sums.len(), METRICS_MAX);
    }
}
