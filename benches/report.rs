//! The results of all rounds as one table: medians, with minimum and maximum in brackets.

use std::fmt::Write as _;

use crate::load::Sample;

/// What a row counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    Messages,
    /// 1,000,000 octets.
    Megabytes,
    /// With no message.
    Connections,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "msg/s",
            Self::Megabytes => "MB/s",
            Self::Connections => "conn/s",
        }
    }
}

struct Row {
    scenario: String,
    program: String,
    unit: Unit,
    samples: Vec<Sample>,
    /// For each sample the raw limit's rate of the same round, where there is one.
    raw: Vec<Option<f64>>,
    /// Without samples: the figure, or why there is none.
    text: String,
    peak: Option<u64>,
}

/// The table in the making.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

/// How many units a sample counts.
fn amount(sample: &Sample, unit: Unit) -> f64 {
    match unit {
        Unit::Messages | Unit::Connections => sample.messages as f64,
        Unit::Megabytes => sample.messages as f64 * sample.size as f64 / 1e6,
    }
}

/// Units a second.
pub(crate) fn rate(sample: &Sample, unit: Unit) -> f64 {
    amount(sample, unit) / sample.seconds
}

impl Report {
    fn row(&mut self, scenario: &str, program: &str, unit: Unit) -> &mut Row {
        let known = self
            .rows
            .iter()
            .position(|row| row.scenario == scenario && row.program == program);
        let at = known.unwrap_or_else(|| {
            // Behind the other programs of its scenario.
            let last = self.rows.iter().rposition(|row| row.scenario == scenario);
            let at = last.map_or(self.rows.len(), |last| last + 1);
            let row = Row {
                scenario: scenario.to_owned(),
                program: program.to_owned(),
                unit,
                samples: Vec::new(),
                raw: Vec::new(),
                text: String::new(),
                peak: None,
            };
            self.rows.insert(at, row);
            at
        });
        &mut self.rows[at]
    }

    /// Adds a round's sample.
    pub(crate) fn add(
        &mut self,
        scenario: &str,
        program: &str,
        unit: Unit,
        sample: Sample,
        raw: Option<f64>,
    ) {
        let row = self.row(scenario, program, unit);
        row.samples.push(sample);
        row.raw.push(raw);
    }

    /// Sets a figure that is not a rate, or the reason why there is none.
    pub(crate) fn say(&mut self, scenario: &str, program: &str, text: String, peak: Option<u64>) {
        let row = self.row(scenario, program, Unit::Messages);
        row.text = text;
        row.peak = peak;
    }

    /// The whole table in Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from(
            "| scenario | program | figure: median (least to most) | CPU s per 1,000: user + system | of the raw limit | peak RSS |\n\
             |---|---|---|---|---|---|\n",
        );
        let mut last = "";
        for row in &self.rows {
            let scenario = if row.scenario == last {
                ""
            } else {
                &row.scenario
            };
            last = &row.scenario;
            let _ = write!(table, "| {scenario} | {} ", row.program);
            if row.samples.is_empty() {
                let _ = writeln!(
                    table,
                    "| {} | | | {} |",
                    row.text,
                    row.peak.map_or(String::new(), mebibytes)
                );
                continue;
            }
            let rates = row.samples.iter().map(|sample| rate(sample, row.unit));
            let each = |cost: fn(&Sample) -> f64| {
                let costs = row
                    .samples
                    .iter()
                    .map(move |sample| 1000.0 * cost(sample) / amount(sample, row.unit));
                Spread::of(costs).map_or(0.0, |spread| spread.median)
            };
            let (user, system) = (each(|s| s.used.user), each(|s| s.used.system));
            let shares = row.samples.iter().zip(&row.raw);
            let shares = shares.filter_map(|(sample, raw)| Some(rate(sample, row.unit) / (*raw)?));
            let share = Spread::of(shares).map_or(String::new(), |s| s.show(2, ""));
            let peak = row.samples.iter().filter_map(|sample| sample.peak).max();
            let rate =
                Spread::of(rates).map_or(String::new(), |spread| spread.show(0, row.unit.name()));
            let peak = peak.map_or(String::new(), mebibytes);
            let sum = user + system;
            let _ = writeln!(
                table,
                "| {rate} | {sum:.3}: {user:.3} + {system:.3} | {share} | {peak} |"
            );
        }
        table
    }
}

fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// The middle of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None of no figures.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = figures.collect();
        all.sort_by(f64::total_cmp);
        let (least, most) = (*all.first()?, *all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self {
            least,
            median: (low + high) / 2.0,
            most,
        })
    }

    /// `12,345 (12,000 to 13,000) msg/s`.
    pub(crate) fn show(&self, decimals: usize, unit: &str) -> String {
        let [median, least, most] =
            [self.median, self.least, self.most].map(|figure| number(figure, decimals));
        let text = match least == most {
            true => format!("{median} {unit}"),
            false => format!("{median} ({least} to {most}) {unit}"),
        };
        text.trim_end().to_owned()
    }
}

/// A number with commas between thousands.
pub(crate) fn number(figure: f64, decimals: usize) -> String {
    let text = format!("{figure:.decimals$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), ""), |(whole, _)| {
            (whole, &text[whole.len()..])
        });
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}
