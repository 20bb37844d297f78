//! Messages of many processes to one and of one to many, along a binomial tree: each process sends and receives at most `log2(n)`
//! times.

use super::{GroupError, ProcessGroup};

/// The processes below one in the tree, nearest first, each with the number of processes from it on.
fn children(process: usize, size: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let steps = (0..usize::BITS).map(|bit| 1usize << bit);
    let own = steps.take_while(move |&step| process & step == 0 && process + step < size);
    own.map(move |step| (process + step, step.min(size - process - step)))
        .collect::<Vec<_>>()
        .into_iter()
}

/// The process above one in the tree.
fn parent(process: usize) -> Option<usize> {
    (process > 0).then(|| process & (process - 1))
}

impl dyn ProcessGroup + '_ {
    /// The message of the first process. The messages of the others are ignored.
    ///
    /// # Errors
    /// [`GroupError`] if a process has ended.
    pub fn broadcast(&self, own: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        let bytes = match parent(self.index()) {
            Some(parent) => self.receive(parent)?,
            None => own,
        };
        // The largest subtree first, because its way is the longest.
        for (child, _) in children(self.index(), self.size()).rev() {
            self.send(child, bytes.clone());
        }
        Ok(bytes)
    }

    /// The messages of all processes in order, on the first process; nothing on the others.
    ///
    /// # Errors
    /// [`GroupError`] if a process has ended.
    pub fn gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        let mut all = vec![own];
        for (child, count) in children(self.index(), self.size()) {
            all.extend(unpack(child, count, self.receive(child)?)?);
        }
        match parent(self.index()) {
            Some(parent) => {
                self.send(parent, pack(&all));
                Ok(Vec::new())
            }
            None => Ok(all),
        }
    }

    /// The messages of all processes, in order.
    ///
    /// # Errors
    /// [`GroupError`] if a process has ended.
    pub fn all_gather(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        if self.size() == 1 {
            return Ok(vec![own]);
        }
        let all = self.gather(own)?;
        unpack(0, self.size(), self.broadcast(pack(&all))?)
    }
}

/// Each message with its length before it.
fn pack(all: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(all.iter().map(|message| 8 + message.len()).sum());
    for message in all {
        bytes.extend((message.len() as u64).to_le_bytes());
        bytes.extend(message);
    }
    bytes
}

/// The `count` messages that process `from` has packed.
fn unpack(from: usize, count: usize, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
    let broken = || GroupError::Gone {
        process: from,
        host: String::new(),
        what: "has sent a message that is cut short".into(),
    };
    let mut rest = &bytes[..];
    let mut all = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk().ok_or_else(broken)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| broken())?;
        let (message, after) = after.split_at_checked(length).ok_or_else(broken)?;
        all.push(message.to_vec());
        rest = after;
    }
    if rest.is_empty() { Ok(all) } else { Err(broken()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_but_the_first_has_one_parent_and_subtrees_are_consecutive() {
        for size in 1..70 {
            let mut seen = vec![0; size];
            for process in 0..size {
                let mut next = process + 1;
                for (child, count) in children(process, size) {
                    assert_eq!((child, parent(child)), (next, Some(process)), "{size}");
                    next = child + count;
                    seen[child] += 1;
                }
            }
            assert!(seen[0] == 0 && seen[1..].iter().all(|&n| n == 1), "{size}: {seen:?}");
        }
    }

    #[test]
    fn messages_survive_packing_and_damage_is_refused() {
        let all = [vec![1, 2], vec![], vec![3]];
        let bytes = pack(&all);
        assert_eq!(unpack(0, 3, bytes.clone()).unwrap(), all);
        assert!(unpack(0, 2, bytes.clone()).is_err() && unpack(0, 4, bytes.clone()).is_err());
        assert!(unpack(0, 3, bytes[..bytes.len() - 1].to_vec()).is_err());
        assert!(unpack(0, 1, vec![255; 9]).is_err());
    }
}
