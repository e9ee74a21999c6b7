//! Tables for people: columns as wide as their widest entry. Pure.

/// To which side a column's entries stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A line for each row, without spaces at its end. The first column stands to the left, the others to `others`.
pub(crate) fn lines<const N: usize>(rows: &[[String; N]], others: Side) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cell = |(column, (cell, width)): (usize, (&String, usize))| match others {
            Side::Right if column > 0 => format!("{cell:>width$}"),
            _ => format!("{cell:width$}"),
        };
        let cells: Vec<String> = row.iter().zip(widths).enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_entry() {
        let rows = [["NAME", "N", ""], ["wörter", "17", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(lines(&rows, Side::Left), ["NAME    N", "wörter  17  x"]);
        assert_eq!(lines(&rows, Side::Right), ["NAME     N", "wörter  17  x"]);
    }
}
