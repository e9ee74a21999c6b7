use super::*;

fn span(keys: &[&str], trees: &[&str]) -> Span {
    let mut span = Span::default();
    keys.iter().for_each(|key| span.add_key(key));
    trees.iter().for_each(|tree| span.add(&Op::DeleteTree { prefix: (*tree).to_owned() }));
    span
}

#[test]
fn spans_touch_where_a_key_lies_in_a_tree() {
    let touch = |a: &Span, b: &Span| {
        assert_eq!(a.touches(b), b.touches(a));
        a.touches(b)
    };
    assert!(touch(&span(&["a"], &[]), &span(&["a", "b"], &[])));
    assert!(!touch(&span(&["a"], &[]), &span(&["b"], &[])));
    assert!(touch(&span(&["t/x"], &[]), &span(&[], &["t/"])));
    assert!(!touch(&span(&["t", "u"], &[]), &span(&[], &["t/"])));
    assert!(touch(&span(&[], &["t/"]), &span(&[], &["t/deep/"])));
    assert!(!touch(&span(&[], &["t/"]), &span(&[], &["u/"])));
    assert!(touch(&span(&[], &[""]), &span(&["x"], &[])));
    assert!(!touch(&span(&[], &[]), &span(&[], &[""])));
}
