//! What is wrong with a configuration, as a person reads it: where, the line itself, what is wrong, what would be right.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::source::{Place, Source};

/// Errors stop `run` and `check`; warnings do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong, at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// `None` where the configuration comes from the command line.
    pub file: Option<PathBuf>,
    /// `None` where the fault is the file's as a whole.
    pub place: Option<Place>,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// `FILE:LINE:COLUMN: error: …`, then the line with a caret under the fault, then what would be right.
impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(out, "{}:", file.display())?;
            if let Some(place) = &self.place {
                write!(out, "{}:{}:", place.line, place.column)?;
            }
            out.write_str(" ")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(out, "{severity}: {}", self.message)?;
        if let Some(place) = &self.place {
            write!(out, "\n{place}")?;
        }
        match &self.hint {
            Some(hint) => write!(out, "\n      = {hint}"),
            None => Ok(()),
        }
    }
}

/// Something that works, and probably not as meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Finding);

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Everything that is wrong with a configuration, in the order of the file: at least one error, and its warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    findings: Vec<Finding>,
}

impl ConfigErrors {
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        debug_assert!(findings.iter().any(|finding| finding.severity == Severity::Error));
        Self { findings }
    }

    /// One error about the file as a whole.
    pub(super) fn file(file: PathBuf, message: String, hint: Option<String>) -> Self {
        let severity = Severity::Error;
        Self::of(vec![Finding { severity, file: Some(file), place: None, message, hint }])
    }

    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, finding) in self.findings.iter().enumerate() {
            let gap = if number == 0 { "" } else { "\n\n" };
            write!(out, "{gap}{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A finding before its place in the text is worked out.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    severity: Severity,
    span: Option<Range<usize>>,
    message: String,
    hint: Option<String>,
}

/// Collects problems while a configuration is read, so that all are told at once.
#[derive(Debug, Default)]
pub(super) struct Log {
    problems: std::cell::RefCell<Vec<Problem>>,
}

impl Log {
    pub(super) fn error(
        &self,
        span: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
        hint: &str,
    ) {
        self.push(Severity::Error, span.into(), message.into(), hint);
    }

    pub(super) fn warn(&self, span: impl Into<Option<Range<usize>>>, message: impl Into<String>, hint: &str) {
        self.push(Severity::Warning, span.into(), message.into(), hint);
    }

    fn push(&self, severity: Severity, span: Option<Range<usize>>, message: String, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.problems.borrow_mut().push(Problem { severity, span, message, hint });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    /// In the order of the file.
    pub(super) fn into_findings(self, source: Option<&Source>) -> Vec<Finding> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        let find = |problem: Problem| Finding {
            severity: problem.severity,
            file: source.map(|source| source.file().to_owned()),
            place: problem.span.and_then(|span| source.map(|source| source.place(&span))),
            message: printable(&problem.message),
            hint: problem.hint.as_deref().map(printable),
        };
        problems.into_iter().map(find).collect()
    }
}

/// Messages quote what stands in the file; a control character there must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
