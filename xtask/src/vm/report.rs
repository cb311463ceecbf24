//! What the machine said on its second serial port: a line per test, and `end`.

use crate::tally::Tally;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    passed: Vec<Test>,
    failed: Vec<Test>,
    ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Test {
    suite: String,
    name: String,
}

impl Report {
    pub(super) fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["passed", suite, name] => report.passed.push(Test::new(suite, name)),
                ["failed", suite, name] => report.failed.push(Test::new(suite, name)),
                ["end"] => report.ended = true,
                ["kernel", about @ ..] => println!("vm: kernel {}", about.join(" ")),
                _ => println!("vm: strange line in the report: {line}"),
            }
        }
        report
    }

    pub(super) fn tally(&self) -> Tally {
        // `usize` fits into `u64` on every machine that runs this.
        let count = |tests: &Vec<Test>| u64::try_from(tests.len()).unwrap_or(u64::MAX);
        Tally { passed: count(&self.passed), failed: count(&self.failed) }
    }

    /// What is wrong, if anything: failures, a machine that died half way, a suite that ran nothing.
    pub(super) fn check(&self, suites: &[&str], filtered: bool) -> Result<(), String> {
        if let Some(first) = self.failed.first() {
            return Err(format!(
                "{} failed in the VM, the first: {} {}",
                self.failed.len(),
                first.suite,
                first.name
            ));
        }
        if !self.ended {
            return Err("the VM ended before its suites did; see target/vm/console.log".into());
        }
        if filtered && !self.passed.is_empty() {
            return Ok(());
        }
        match suites.iter().find(|suite| !self.passed.iter().any(|test| test.suite == **suite)) {
            Some(idle) => Err(format!("{idle} ran nothing in the VM")),
            None => Ok(()),
        }
    }
}

impl Test {
    fn new(suite: &str, name: &str) -> Self {
        Self { suite: suite.to_owned(), name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "kernel 6.1.0 /sys/fs/cgroup memory,pids\r\npassed a.x one\r\npassed b.y two\r\nend\r\n";

    fn verdict(text: &str) -> Result<(), String> {
        Report::parse(text).check(&["a.x", "b.y"], false)
    }

    #[test]
    fn a_whole_report_of_passes_is_good() {
        assert_eq!(Report::parse(GOOD).tally(), Tally { passed: 2, failed: 0 });
        assert_eq!(verdict(GOOD), Ok(()));
    }

    #[test]
    fn a_failure_an_early_end_and_an_idle_suite_are_bad() {
        assert_eq!(
            verdict(&GOOD.replace("passed b.y", "failed b.y")).unwrap_err(),
            "1 failed in the VM, the first: b.y two"
        );
        assert!(verdict(&GOOD.replace("end", "")).unwrap_err().starts_with("the VM ended before"));
        assert_eq!(verdict(&GOOD.replace("b.y", "a.x")).unwrap_err(), "b.y ran nothing in the VM");
        assert!(verdict("").is_err());
    }

    #[test]
    fn a_filter_may_leave_suites_idle_but_not_all_of_them() {
        let only = |text: &str| Report::parse(text).check(&["a.x", "b.y"], true);
        assert_eq!(only("passed a.x one\nend\n"), Ok(()));
        assert!(only("end\n").is_err());
    }
}
