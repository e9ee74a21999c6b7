//! Values of which there are many: lists of texts, and tables `[[section.key]]`.

use toml::{Spanned, de::DeValue};

use crate::config::{
    key::Key,
    reader::{Reading, Refusal, header_of_many, kind, written},
};

impl<'a> Reading<'_, 'a> {
    /// A list of texts that `parse` makes something of. None when it is not given; every entry that is refused is a
    /// problem of its own.
    pub(crate) fn list<T>(
        &mut self,
        key: &Key,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<Vec<T>> {
        let entries = self.entries(key, "a list")?;
        let parsed = entries.iter().filter_map(|entry| {
            let Some(text) = entry.get_ref().as_str() else {
                let problem =
                    format!("holds {}, and each of its entries must be text", kind(entry.get_ref()));
                self.refuse_at(entry.span(), key, &problem, &written(key));
                return None;
            };
            parse(text)
                .map_err(|refusal| {
                    let remedy = refusal.remedy.unwrap_or_else(|| written(key));
                    self.refuse_at(entry.span(), key, &refusal.problem, &remedy);
                })
                .ok()
        });
        Some(parsed.collect())
    }

    /// What `read` makes of each table `[[section.key]]`, in the order of the file. One of which it makes nothing is
    /// left out: what is wrong with it was told.
    pub(crate) fn tables<T>(
        &mut self,
        key: &Key,
        mut read: impl FnMut(&mut Reading<'_, 'a>) -> Option<T>,
    ) -> Vec<T> {
        let wanted = format!("tables, each below a line [{}]", header_of_many(&self.name, key));
        let name = header_of_many(&self.name, key);
        let mut made = Vec::new();
        for entry in self.entries(key, &wanted).unwrap_or_default() {
            match entry.get_ref().as_table() {
                Some(table) => {
                    let document = &mut *self.document;
                    let mut reading =
                        Reading { document, name: name.clone(), begins: entry.span(), table: Some(table) };
                    made.extend(read(&mut reading));
                }
                None => {
                    let problem = format!("holds {}, and must be {wanted}", kind(entry.get_ref()));
                    self.refuse_at(entry.span(), key, &problem, &written(key));
                }
            }
        }
        made
    }

    /// A problem with a key that this table must have and has not: told at the table's place.
    pub(crate) fn require(&mut self, key: &Key) {
        if !self.has(key) {
            self.refuse_at(self.begins.clone(), key, "is missing", &written(key));
        }
    }

    fn entries(&mut self, key: &Key, wanted: &str) -> Option<&'a [Spanned<DeValue<'a>>]> {
        let value = self.take(key)?;
        match value.get_ref() {
            DeValue::Array(entries) => Some(entries),
            _ => {
                self.wrong_type(key, value, wanted);
                None
            }
        }
    }
}
