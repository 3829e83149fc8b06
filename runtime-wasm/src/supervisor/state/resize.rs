//! Containers that run are given other limits and requests.

use super::{Command, Supervision, refusal, reply};
use crate::wire::{Answer, bounds};
use coracle_runtime::{Resources, cgroup};

impl<F> Supervision<F> {
    /// Gives each of these containers what is wanted for it, or, where one cannot have that, none. `used`: bytes of memory in use of a slot.
    pub fn resize(&mut self, id: u64, wanted: Vec<(String, Resources)>, used: impl Fn(usize) -> u64) -> Vec<Command> {
        for (name, resources) in &wanted {
            let Some((_, container)) = self.find(name).filter(|(_, container)| !container.ended()) else { continue };
            let (spec, limit) = (&container.start.spec, resources.memory_limit);
            let what = format!("container {:?}", spec.name);
            let room = cgroup::room(&what, (spec.resources.memory_limit, limit), Some(used(container.slot)));
            if let Err(why) = room.and_then(|()| bounds::beginning(container.start.memory, resources)) {
                return vec![reply(id, Err(refusal("ResizeError", why, false)))];
            }
        }
        let mut commands = Vec::new();
        for (name, resources) in wanted {
            // What has ended meanwhile needs nothing, and its slot is another's soon.
            let Some((_, container)) = self.find(&name).filter(|(_, container)| !container.ended()) else { continue };
            container.start.spec.resources = resources.clone();
            commands.push(Command::Allot(container.slot, resources));
        }
        commands.push(reply(id, Ok(Answer::Done)));
        commands
    }
}
