//! One table of the file, asked for its keys one by one.
//!
//! Every key that is asked for is thereby known; what is left when the reading is done is an unknown key. So the list
//! of known keys cannot fall out of step with the code that reads them, as long as every key is asked for every time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use plimsoll_core::units::Bytes;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::Log;
use super::homes::home_of;
use super::quantity;
use super::suggest::nearest;

/// How a word is refused that is none of those that may be written.
#[derive(Clone, Copy, Debug)]
pub(super) enum WrongWord<'a> {
    /// `"xml" is no format of an access log`, and what to write instead.
    IsNo { what: &'a str, hint: &'a str },
    /// `unknown handover "overlapp"`, with the nearest word, or all of them.
    Unknown,
}

pub(super) struct Section<'d> {
    /// As it is written in the file: `service.reports.memory`; empty for the file itself.
    pub(super) path: String,
    /// The name of the table, or where there is none the table itself.
    pub(super) span: Range<usize>,
    entries: &'d DeTable<'d>,
    log: &'d Log,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'d> Section<'d> {
    pub(super) fn root(entries: &'d DeTable<'d>, log: &'d Log) -> Self {
        Self::new(String::new(), 0..0, entries, log)
    }

    fn new(path: String, span: Range<usize>, entries: &'d DeTable<'d>, log: &'d Log) -> Self {
        Self { path, span, entries, log, asked: RefCell::default() }
    }

    /// Reads with `reader`, then refuses every key it did not ask for.
    pub(super) fn read<T>(self, reader: impl FnOnce(&Self) -> T) -> T {
        let result = reader(&self);
        self.refuse_unknown();
        result
    }

    pub(super) fn log(&self) -> &'d Log {
        self.log
    }

    pub(super) fn error(&self, span: Range<usize>, message: impl Into<String>, hint: &str) {
        self.log.error(span, message, hint);
    }

    /// The place of `key`'s value, or the section's own where it is not written.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.entries.get(key).map_or(self.span.clone(), Spanned::span)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.borrow_mut().insert(key);
        self.entries.get(key)
    }

    /// Text that is not empty.
    pub(super) fn text(&self, key: &'static str, example: &str) -> Option<Spanned<String>> {
        let value = self.value(key)?;
        let hint = format!("write {key} = \"{example}\"");
        match value.get_ref().as_str() {
            Some("") => self.error(value.span(), format!("{key} is empty"), &hint),
            Some(text) => return Some(Spanned::new(value.span(), text.to_owned())),
            None => self.wrong_type(key, "text in quotes", value, &hint),
        }
        None
    }

    /// What one of these words stands for. `None` where none of them is written.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        words: &[(&str, T)],
        wrong: WrongWord<'_>,
    ) -> Option<T> {
        let written = self.text(key, words.first().map_or("", |(word, _)| word))?;
        let found = words.iter().find(|(word, _)| word == written.get_ref());
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse_word(key, &written, &known, wrong);
        }
        found.map(|(_, meant)| *meant)
    }

    pub(super) fn refuse_word(
        &self,
        key: &str,
        written: &Spanned<String>,
        known: &[&str],
        wrong: WrongWord<'_>,
    ) {
        let word = written.get_ref();
        match wrong {
            WrongWord::IsNo { what, hint } => {
                self.error(written.span(), format!("\"{word}\" is no {what}"), hint);
            }
            WrongWord::Unknown => {
                let near = nearest(word, known.iter().copied());
                let listed = || format!("known: {}", known.join(", "));
                let hint = near.map_or_else(listed, |near| format!("did you mean \"{near}\"?"));
                self.error(written.span(), format!("unknown {key} \"{word}\""), &hint);
            }
        }
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<Spanned<bool>> {
        let value = self.value(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            let meant = match value.get_ref().as_str() {
                Some("true" | "yes" | "on") => "true",
                Some(_) | None => "false",
            };
            let hint = format!("write {key} = {meant}, without quotes");
            self.wrong_type(key, "true or false", value, &hint);
        }
        flag.map(|flag| Spanned::new(value.span(), flag))
    }

    pub(super) fn size(&self, key: &'static str, example: &str) -> Option<Spanned<Bytes>> {
        self.quantity(key, "a size with its unit", example, quantity::size)
    }

    pub(super) fn duration(&self, key: &'static str, example: &str) -> Option<Spanned<Duration>> {
        self.quantity(key, "a duration with its unit", example, quantity::span)
    }

    /// A duration for which zero would make no sense.
    pub(super) fn positive_duration(&self, key: &'static str, example: &str) -> Option<Spanned<Duration>> {
        let span = self.duration(key, example)?;
        if span.get_ref().is_zero() {
            let hint = format!("write {key} = \"{example}\"");
            self.error(span.span(), format!("{key} must be longer than nothing"), &hint);
            return None;
        }
        Some(span)
    }

    fn quantity<T>(
        &self,
        key: &'static str,
        what: &str,
        example: &str,
        parse: fn(&str) -> Result<T, quantity::Refused>,
    ) -> Option<Spanned<T>> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            let hint = format!("write {key} = \"{example}\"");
            self.wrong_type(key, what, value, &hint);
            return None;
        };
        match parse(text) {
            Ok(quantity) => Some(Spanned::new(value.span(), quantity)),
            Err(refused) => {
                self.error(value.span(), format!("{key}: {}", refused.message), &refused.hint);
                None
            }
        }
    }

    pub(super) fn whole(&self, key: &'static str, allowed: RangeInclusive<u64>) -> Option<Spanned<u64>> {
        let value = self.value(key)?;
        let (least, most) = (*allowed.start(), *allowed.end());
        let hint = format!("write a number from {least} to {most}");
        let Some(number) = value.get_ref().as_integer() else {
            self.wrong_type(key, "a whole number", value, &hint);
            return None;
        };
        let number = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let number = number.filter(|number| allowed.contains(number));
        if number.is_none() {
            self.error(value.span(), format!("{key} is out of range"), &hint);
        }
        number.map(|number| Spanned::new(value.span(), number))
    }

    /// As [`whole`](Self::whole), for what is kept in 32 bits.
    pub(super) fn small(&self, key: &'static str, allowed: RangeInclusive<u32>) -> Option<u32> {
        let wide = u64::from(*allowed.start())..=u64::from(*allowed.end());
        self.whole(key, wide).and_then(|number| u32::try_from(number.into_inner()).ok())
    }

    /// A list of texts.
    pub(super) fn list(&self, key: &'static str, example: &str) -> Option<Spanned<Vec<Spanned<String>>>> {
        let value = self.value(key)?;
        let hint = format!("write {key} = {example}");
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(key, "a list of texts", value, &hint);
            return None;
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Spanned::new(item.span(), text.to_owned())),
                None => self.wrong_type(&format!("an item of {key}"), "text in quotes", item, &hint),
            }
        }
        Some(Spanned::new(value.span(), texts))
    }

    /// A table below this one.
    pub(super) fn section(&self, key: &'static str) -> Option<Section<'d>> {
        let value = self.value(key)?;
        let (name, _) = self.entries.get_key_value(key)?;
        self.child(name.span(), key, value)
    }

    /// `[[key]]`, once or more.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let path = self.path_of(key);
        let Some(items) = value.get_ref().as_array() else {
            let hint = format!("write [[{path}]], with two brackets");
            self.wrong_type(key, "a list of tables", value, &hint);
            return Vec::new();
        };
        items.iter().filter_map(|item| self.child(item.span(), key, item)).collect()
    }

    /// Every table below this one, with its name, in the order of the file.
    pub(super) fn children(&self) -> Vec<(Spanned<String>, Section<'d>)> {
        let mut found = Vec::new();
        for (name, value) in self.entries {
            let child = self.child(name.span(), name.get_ref(), value);
            found.extend(child.map(|child| (Spanned::new(name.span(), name.get_ref().to_string()), child)));
        }
        found.sort_by_key(|(name, _)| name.span().start);
        found
    }

    /// Every key with its value, where the keys are the user's own.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (Spanned<&'d str>, &'d Spanned<DeValue<'d>>)> + use<'d> {
        self.entries.iter().map(|(key, value)| (Spanned::new(key.span(), key.get_ref().as_ref()), value))
    }

    fn child(&self, span: Range<usize>, key: &str, value: &'d Spanned<DeValue<'d>>) -> Option<Section<'d>> {
        let path = self.path_of(key);
        let table = value.get_ref().as_table();
        if table.is_none() {
            let header = if path == "service" { "service.NAME" } else { &path };
            self.wrong_type(&path, "a table", value, &format!("write [{header}] on a line of its own"));
        }
        table.map(|table| Self::new(path, span, table, self.log))
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn wrong_type(&self, what: &str, wanted: &str, found: &Spanned<DeValue<'_>>, hint: &str) {
        let found_type = match found.get_ref() {
            DeValue::String(_) => "text",
            DeValue::Integer(_) | DeValue::Float(_) => "a bare number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(found.span(), format!("{what} must be {wanted}, not {found_type}"), hint);
    }

    fn refuse_unknown(&self) {
        let asked = self.asked.borrow();
        for key in self.entries.keys().filter(|key| !asked.contains(key.get_ref().as_ref())) {
            let name = key.get_ref();
            let place = if self.path.is_empty() {
                "at the top of the file".to_owned()
            } else {
                format!("in [{}]", self.path)
            };
            let near = nearest(name, asked.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let listed = || {
                let known: Vec<&str> = asked.iter().copied().collect();
                format!("known here: {}", known.join(", "))
            };
            let hint = home_of(&self.path, name).or(near).unwrap_or_else(listed);
            self.error(key.span(), format!("unknown key `{name}` {place}"), &hint);
        }
    }
}
