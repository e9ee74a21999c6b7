//! Where memory comes from: an allocator that gives back what is free (docs/adr/0011). Whatever links the library has it,
//! so that benches measure what agents do.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;
