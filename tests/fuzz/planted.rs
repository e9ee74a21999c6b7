//! The harness itself is checked: decoders with a fault planted in each are caught, each for what it is, and one
//! without is not.

use super::{
    Target,
    hunt::{Effort, Kind, hunt},
};

/// A text that every target of this file has in its corpus: `key=value`.
const EFFORT: Effort = Effort::Inputs(4_000);

pub(super) const PLANTED: &[Target] = &[
    Target { name: "planted_none", decode: |bytes| drop(String::from_utf8_lossy(bytes)) },
    Target { name: "planted_panic", decode: slices_without_looking },
    Target { name: "planted_stack", decode: |bytes| assert!(depth(bytes) <= bytes.len()) },
    Target { name: "planted_memory", decode: believes_a_length },
    Target { name: "planted_time", decode: |bytes| assert!(inversions(bytes) < u64::MAX) },
    Target { name: "planted_endless", decode: never_ends_on_a_percent_sign },
    Target { name: "planted_trip", decode: forgets_what_it_read },
];

/// Panics where a text ends behind its sign.
fn slices_without_looking(bytes: &[u8]) {
    if let Some(at) = bytes.iter().position(|byte| *byte == b'=') {
        std::hint::black_box(bytes[at + 1]);
    }
}

/// Goes as deep as the input does.
fn depth(bytes: &[u8]) -> usize {
    match bytes.split_first() {
        Some((b'[' | b'(', rest)) => std::hint::black_box([1_usize; 8])[0] + depth(rest),
        Some((_, rest)) if rest.first().is_some_and(|byte| matches!(byte, b'[' | b'(')) => depth(rest),
        _ => 0,
    }
}

/// Makes room for as much as the input says.
fn believes_a_length(bytes: &[u8]) {
    let digits: String = bytes
        .iter()
        .skip_while(|b| !b.is_ascii_digit())
        .take_while(|b| b.is_ascii_digit())
        .map(|b| char::from(*b))
        .collect();
    if let Ok(length) = digits.parse::<u32>() {
        std::hint::black_box(vec![1_u8; length as usize]);
    }
}

/// Compares everything with everything.
fn inversions(bytes: &[u8]) -> u64 {
    let pairs =
        |at: usize| bytes[at..].iter().filter(|later| std::hint::black_box(**later) < bytes[at]).count();
    (0..bytes.len()).map(|at| pairs(at) as u64).sum()
}

fn never_ends_on_a_percent_sign(bytes: &[u8]) {
    while bytes.contains(&b'%') {
        std::hint::spin_loop();
    }
}

fn forgets_what_it_read(bytes: &[u8]) {
    let read = String::from_utf8_lossy(bytes);
    assert_eq!(read.trim_end().as_bytes(), bytes, "read back something else");
}

fn caught(target: &str) -> Kind {
    let failure = hunt(target, 1, EFFORT).expect_err("a planted fault was not caught");
    println!("{target}: {:?} on {} bytes", failure.kind, failure.input.len());
    assert!(!failure.input.is_empty(), "the input that did it is not kept");
    failure.kind
}

#[test]
fn a_decoder_without_fault_is_none() {
    println!("{}", hunt("planted_none", 1, EFFORT).unwrap_or_else(|failure| panic!("{failure}")));
}

#[test]
fn a_panic_is_caught() {
    assert_eq!(caught("planted_panic"), Kind::Panic);
}

#[test]
fn a_full_stack_is_caught() {
    assert_eq!(caught("planted_stack"), Kind::Stack);
}

#[test]
fn memory_without_bound_is_caught() {
    assert_eq!(caught("planted_memory"), Kind::Memory);
}

#[test]
fn quadratic_work_and_work_without_end_are_caught() {
    assert_eq!(caught("planted_time"), Kind::Time);
    assert_eq!(caught("planted_endless"), Kind::Time);
}

#[test]
fn what_reads_back_otherwise_is_caught() {
    assert_eq!(caught("planted_trip"), Kind::Panic);
}
