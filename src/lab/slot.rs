//! Owns the claim on a block of loopback addresses. It must not know what will listen there.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

use crate::lab::{
    LabError, LabOptions,
    plan::{Plan, guard_address, port},
};

/// A claimed slot. The guard listener is held for the lab's life: no other lab takes the slot meanwhile, and the
/// system frees it whichever way this process ends.
#[derive(Debug)]
pub struct Claim {
    /// What the lab looks like in this slot.
    pub plan: Plan,
    _guard: TcpListener,
}

/// Claims the first free slot of those allowed.
///
/// Errors: when all are taken, the address that stood in the way in the first of them.
pub fn claim(options: &LabOptions) -> Result<Claim, LabError> {
    let mut first_trouble = None;
    for slot in options.slots.clone() {
        let Ok(guard) = TcpListener::bind((guard_address(slot), port::GUARD)) else { continue };
        let plan = Plan::new(options, slot);
        match busy(&plan) {
            None => return Ok(Claim { plan, _guard: guard }),
            Some(trouble) => first_trouble = first_trouble.or(Some(trouble)),
        }
    }
    Err(first_trouble.unwrap_or(LabError::NoSlot))
}

/// The first address that cannot be listened on.
fn busy(plan: &Plan) -> Option<LabError> {
    plan.listeners().into_iter().find_map(|(address, port)| {
        let reason = try_listen(address, port).err()?;
        Some(LabError::Busy { address, port, reason })
    })
}

fn try_listen(address: Ipv4Addr, port: u16) -> io::Result<()> {
    TcpListener::bind((address, port)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Slots far from those a lab takes by itself.
    const FREE: u8 = 118;

    #[test]
    fn two_labs_take_two_slots() {
        let mut options = LabOptions::example();
        options.slots = FREE..=FREE + 1;
        let first = claim(&options).unwrap();
        let second = claim(&options).unwrap();
        assert_eq!((first.plan.slot, second.plan.slot), (FREE, FREE + 1));
        assert!(matches!(claim(&options), Err(LabError::NoSlot)));
        drop(first);
        assert_eq!(claim(&options).unwrap().plan.slot, FREE);
    }

    #[test]
    fn a_busy_address_is_named_or_passed_by() {
        let mut options = LabOptions::example();
        options.slots = FREE + 2..=FREE + 2;
        let gateway = Plan::new(&options, FREE + 2).node("primary-gateway").unwrap().address;
        let _taken = TcpListener::bind((gateway, port::MESH_GATEWAY)).unwrap();
        let error = claim(&options).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{gateway}:8443 cannot be listened on")), "{error}");
        options.slots = FREE + 2..=FREE + 3;
        assert_eq!(claim(&options).unwrap().plan.slot, FREE + 3);
    }
}
