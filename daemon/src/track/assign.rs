//! Who is who: pairs rows with columns so that the sum of their weights is the greatest.
//!
//! The Hungarian method by shortest augmenting paths (Kuhn 1955; Jonker and Volgenant 1987). A pair of weight 0 counts
//! as no pair, which is the same as a limit on the cost of a pair. Everything is allocated once.

/// Stands for "nothing".
const NONE: usize = usize::MAX;

/// Working memory for problems up to a fixed size.
#[derive(Debug)]
pub(super) struct Assignment {
    rows_max: usize,
    columns_max: usize,
    rows: usize,
    columns: usize,
    /// Whether rows and columns are exchanged: the method wants no more rows than columns.
    is_turned: bool,
    /// `rows` times `columns` weights.
    weights: Vec<f32>,
    row_potential: Vec<f32>,
    column_potential: Vec<f32>,
    /// The row of a column; the entry after the last column's belongs to the extra one that a search starts from.
    row_of: Vec<usize>,
    least: Vec<f32>,
    came_from: Vec<usize>,
    is_reached: Vec<bool>,
}

impl Assignment {
    /// Room for problems of so many rows and columns.
    pub(super) fn new(rows_max: usize, columns_max: usize) -> Self {
        let longer = rows_max.max(columns_max);
        Self {
            rows_max,
            columns_max,
            rows: 0,
            columns: 0,
            is_turned: false,
            weights: vec![0.0; rows_max * columns_max],
            row_potential: vec![0.0; longer],
            column_potential: vec![0.0; longer + 1],
            row_of: vec![NONE; longer + 1],
            least: vec![0.0; longer + 1],
            came_from: vec![NONE; longer + 1],
            is_reached: vec![false; longer + 1],
        }
    }

    /// Begins a problem without any pair.
    ///
    /// # Panics
    /// When there is no room for it.
    pub(super) fn begin(&mut self, rows: usize, columns: usize) {
        assert!(
            rows <= self.rows_max && columns <= self.columns_max,
            "no room for {rows} rows and {columns} columns"
        );
        self.is_turned = rows > columns;
        (self.rows, self.columns) = (rows.min(columns), rows.max(columns));
        self.weights[..rows * columns].fill(0.0);
    }

    /// Sets the weight of a pair, 0 to 1.
    pub(super) fn set(&mut self, row: usize, column: usize, weight: f32) {
        let (row, column) = self.turned((row, column));
        self.weights[row * self.columns + column] = weight;
    }

    /// The pairs of the greatest sum, as row and column; those of weight 0 are left out.
    pub(super) fn solve(&mut self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let columns = self.columns;
        self.row_potential[..self.rows].fill(0.0);
        self.column_potential[..=columns].fill(0.0);
        self.row_of[..=columns].fill(NONE);
        for row in 0..self.rows {
            self.place(row);
        }
        let solved = &*self;
        (0..columns)
            .map(move |column| (solved.row_of[column], column))
            .filter(move |&(row, column)| {
                row != NONE && solved.weights[row * columns + column] > 0.0
            })
            .map(move |pair| solved.turned(pair))
    }

    fn turned(&self, (row, column): (usize, usize)) -> (usize, usize) {
        if self.is_turned {
            (column, row)
        } else {
            (row, column)
        }
    }

    /// Finds a column for `row`, moving other rows to other columns where that costs the least.
    fn place(&mut self, row: usize) {
        let columns = self.columns;
        // The search starts from an extra column, which the row occupies for the time being.
        let start = columns;
        self.row_of[start] = row;
        self.least[..=columns].fill(f32::INFINITY);
        self.is_reached[..=columns].fill(false);
        let mut column = start;
        while self.row_of[column] != NONE {
            self.is_reached[column] = true;
            let occupant = self.row_of[column];
            let mut step = f32::INFINITY;
            let mut next = NONE;
            for candidate in 0..columns {
                if self.is_reached[candidate] {
                    continue;
                }
                let cost = -self.weights[occupant * columns + candidate];
                let reduced =
                    cost - self.row_potential[occupant] - self.column_potential[candidate];
                if reduced < self.least[candidate] {
                    self.least[candidate] = reduced;
                    self.came_from[candidate] = column;
                }
                if self.least[candidate] < step || next == NONE {
                    step = self.least[candidate];
                    next = candidate;
                }
            }
            assert!(next != NONE, "there are at least as many columns as rows");
            for other in 0..=columns {
                if self.is_reached[other] {
                    self.row_potential[self.row_of[other]] += step;
                    self.column_potential[other] -= step;
                } else {
                    self.least[other] -= step;
                }
            }
            column = next;
        }
        // Every row on the way moves on by one column.
        while column != start {
            let before = self.came_from[column];
            self.row_of[column] = self.row_of[before];
            column = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn solve(weights: &[Vec<f32>]) -> Vec<(usize, usize)> {
        let columns = weights.first().map_or(0, Vec::len);
        let mut assignment = Assignment::new(weights.len(), columns);
        assignment.begin(weights.len(), columns);
        for (row, line) in weights.iter().enumerate() {
            for (column, &weight) in line.iter().enumerate() {
                assignment.set(row, column, weight);
            }
        }
        let mut pairs: Vec<_> = assignment.solve().collect();
        pairs.sort_unstable();
        pairs
    }

    /// The greatest sum, by trying everything.
    fn best_sum(weights: &[Vec<f32>], taken: &mut Vec<bool>) -> f32 {
        let Some((first, rest)) = weights.split_first() else {
            return 0.0;
        };
        let mut best = best_sum(rest, taken);
        for (column, weight) in first.iter().enumerate() {
            if !taken[column] {
                taken[column] = true;
                best = best.max(weight + best_sum(rest, taken));
                taken[column] = false;
            }
        }
        best
    }

    #[test]
    fn the_whole_matters_more_than_the_best_pair() {
        assert_eq!(
            solve(&[vec![0.9, 0.8], vec![0.8, 0.0]]),
            [(0, 1), (1, 0)],
            "taking 0.9 first would leave the second row alone"
        );
        assert_eq!(solve(&[vec![0.0, 0.0]]), [], "a weight of 0 is no pair");
        assert_eq!(solve(&[]), []);
    }

    proptest! {
        #[test]
        fn the_sum_is_the_greatest_and_nobody_is_taken_twice(
            rows in 0usize..6,
            columns in 1usize..6,
            seed in proptest::collection::vec(0u8..=10, 36),
        ) {
            // Tenths, many of them zero or equal, so that ties and gaps occur.
            let weight = |row: usize, column: usize| {
                f32::from(seed[row * 6 + column].saturating_sub(3)) / 8.0
            };
            let weights: Vec<Vec<f32>> = (0..rows)
                .map(|row| (0..columns).map(|column| weight(row, column)).collect())
                .collect();
            let pairs = solve(&weights);
            let sum: f32 = pairs.iter().map(|&(row, column)| weights[row][column]).sum();
            let best = best_sum(&weights, &mut vec![false; columns]);
            prop_assert!((sum - best).abs() < 1e-4, "{sum} instead of {best}");
            let mut taken: Vec<usize> = pairs.iter().map(|&(_, column)| column).collect();
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(taken.len(), pairs.len());
            prop_assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0), "rows once each");
        }
    }
}
