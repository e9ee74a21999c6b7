//! What ACLs add. Without them these have little to look at.

use anyhow::{Context, ensure};

use crate::lab::rig::{ENVOYS, Rig, eventually};

pub(super) async fn no_token_is_shown(rig: &mut Rig) -> anyhow::Result<()> {
    let mut shown = Vec::new();
    for node in &rig.lab.plan().nodes {
        for process in &node.processes {
            let pid = rig.lab.pid(&node.name, &process.name)?;
            shown.push((
                format!("arguments of {}/{}", node.name, process.name),
                format!("/proc/{pid}/cmdline"),
            ));
            shown.push((process.log.display().to_string(), process.log.display().to_string()));
        }
    }
    let mut texts = Vec::new();
    for (place, file) in shown {
        texts.push((place, std::fs::read(&file).with_context(|| file.clone())?));
    }
    for node in ENVOYS {
        for page in ["/status", "/metrics"] {
            texts.push((format!("{node}{page}"), rig.causeway(node, page).await?));
        }
    }
    let tokens = rig.tokens()?;
    ensure!(tokens.is_empty() != rig.has_acls(), "{} tokens", tokens.len());
    for (name, secret) in &tokens {
        for (place, text) in &texts {
            ensure!(!String::from_utf8_lossy(text).contains(secret), "the token {name} is in {place}");
        }
    }
    println!("  {} tokens looked for in {} places", tokens.len(), texts.len());
    Ok(())
}

/// Nothing was left out of an answer, and nothing refused.
pub(super) async fn least_rights_are_enough(rig: &mut Rig) -> anyhow::Result<()> {
    for node in ENVOYS {
        eventually(&format!("{node}'s agent reads all it needs"), async || {
            let status = rig.status(node).await?;
            let notes = status.proxies.iter().flat_map(|proxy| &proxy.notes);
            let troubles = status.topics.iter().filter_map(|topic| topic.trouble.as_ref());
            let all: Vec<_> = notes.chain(troubles).collect();
            ensure!(all.is_empty(), "{all:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}
