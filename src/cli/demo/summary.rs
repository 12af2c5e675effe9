//! Writes the introduction, the summary and the next steps of the demo.

use anyhow::anyhow;

use super::Story;
use super::kill::Counted;
use super::screen::{self, Tone, grouped};
use super::sinks::Delivered;
use super::wire::Wire;
use crate::cli::{Ended, Failure};

/// The results that the summary shows: requests and responses, deliveries, scenes, and with `--kill` the counts of that scene.
pub struct Summary<'a> {
    pub wire: &'a Wire,
    pub delivered: &'a Delivered,
    pub story: &'a Story,
    pub killed: Option<&'a Counted>,
}

/// Writes the addresses of the local cloud and the receiver, before the first event.
pub fn introduce(cloud: &str, receiver: &str) -> std::io::Result<()> {
    screen::report(
        Tone::Heading,
        "cloud",
        &format!("{cloud}   25 devices send signed events, as DT does"),
        "",
    )?;
    screen::report(
        Tone::Heading,
        "receiver",
        &format!("{receiver}     verifies both signatures, stores, answers 200, delivers"),
        "",
    )?;
    screen::report(Tone::Heading, "sinks", "screen, archive", "")?;
    screen::columns()
}

impl Summary<'_> {
    /// Writes the summary of the results.
    pub fn show(&self) -> std::io::Result<()> {
        let Self { wire, delivered, story, killed } = self;
        screen::heading("summary")?;
        let took = wire.median().map_or_else(String::new, |took| {
            format!(", after {:.1} ms (median): stored and synced first", took.as_secs_f64() * 1_000.0)
        });
        let row = |tag: &str, text: &str| screen::report(Tone::Plain, tag, text, "");
        row("accepted", &format!("{} events, each answered 200{took}", grouped(wire.acknowledged.count())))?;
        let late = story.outage.as_ref().map_or_else(String::new, |outage| {
            format!(", {} of them after an outage of {:.1} s", outage.waited, outage.length.as_secs_f64())
        });
        let (screen, archive) = (delivered.screen.count(), delivered.archive.count());
        row("delivered", &format!("{} to screen, {} to archive{late}", grouped(screen), grouped(archive)))?;
        let refused = story.rejections.codes();
        if !refused.is_empty() {
            row("refused", &format!("{} forged requests: {}", refused.len(), refused.join(", ")))?;
        }
        if let Some(Counted { sent, acknowledged_before, delivered, .. }) = killed {
            let before = format!("after {} of {} answers", grouped(*acknowledged_before), grouped(*sent));
            row("kill -9", &format!("{before}; {} events delivered", grouped(*delivered)))?;
        }
        let lost = self.lost();
        screen::report(if lost == 0 { Tone::Good } else { Tone::Bad }, "lost", &grouped(lost), "")
    }

    /// Returns the number of acknowledged events that a sink did not receive: the larger one of both sinks.
    fn lost(&self) -> usize {
        let acknowledged = self.wire.acknowledged.ids();
        let (screen, archive) = (&self.delivered.screen, &self.delivered.archive);
        let of_killed = self.killed.map_or(0, |counted| counted.lost);
        screen.missing(&acknowledged).max(archive.missing(&acknowledged)).saturating_add(of_killed)
    }

    /// Checks that no event was lost or repeated, and that no forged request was accepted.
    ///
    /// # Errors
    ///
    /// [`Failure::Internal`] with the violation.
    pub fn verdict(&self) -> Ended {
        let (lost, forged) = (self.lost(), self.story.rejections.accepted());
        let broken = |text: String| Err(Failure::Internal(anyhow!(text)));
        if lost > 0 {
            return broken(format!("{lost} acknowledged events were lost"));
        }
        if forged > 0 {
            return broken(format!("{forged} forged requests were accepted"));
        }
        match self.killed {
            Some(counted) if counted.repeated > 0 => {
                broken(format!("{} events were delivered twice to a file", counted.repeated))
            }
            _ => Ok(()),
        }
    }
}

/// Writes the suggested next steps. `command` is the command that started the program; `killed` says whether `--kill` was used.
pub fn suggest(command: &str, killed: bool) -> std::io::Result<()> {
    let secret = "DT_SIGNATURE_SECRET=some-good-secret";
    screen::heading("next")?;
    if !killed {
        screen::command(
            "the same, then kill -9 in the middle of a burst",
            &format!("{command} demo --kill"),
        )?;
    }
    screen::command("receive on http://127.0.0.1:8080/", &format!("{secret} {command} serve"))?;
    let send = format!("{secret} {command} send --count 5");
    screen::command("send it events, from a second terminal", &send)?;
    screen::command("everything else", &format!("{command} --help"))
}
