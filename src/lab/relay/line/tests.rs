use std::num::NonZeroU32;

use super::*;

const DELAY: Duration = Duration::from_millis(80);

#[test]
fn a_delay_holds_for_each_and_a_rate_for_all_together() {
    let now = lifecycle::now();
    let mut line = Line::default();
    let delayed = Slow { delay: DELAY, bytes_per_second: None };
    assert_eq!(line.due(now, 1_000_000, delayed), now + DELAY);
    assert_eq!(line.due(now, 1, delayed), now + DELAY);

    let slow = Slow { bytes_per_second: NonZeroU32::new(1_000), ..delayed };
    assert_eq!(line.due(now, 500, slow), now + Duration::from_millis(580));
    assert_eq!(line.due(now, 500, slow), now + Duration::from_millis(1_080), "it waits for what was first");
    let later = now + Duration::from_secs(9);
    assert_eq!(line.due(later, 500, slow), later + Duration::from_millis(580), "the line is free again");
}
