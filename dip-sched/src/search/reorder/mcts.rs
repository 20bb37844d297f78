//! Reordering by Monte-Carlo tree search, the method of the paper (section 2, phase 1).
//!
//! A node of the tree is a prefix of the sequence. A round selects a node by its upper confidence bound over the best score below
//! it, adds one child, tries random sequences through that child, and passes the best makespan up to the root.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Reorder;

/// Random sequences through a new node.
const ROLLOUTS: usize = 10;
/// Exponent of the score. Good sequences differ little, and the exponent stretches the differences.
const ALPHA: f64 = 16.0;
/// Weight of exploration.
const BETA: f64 = 0.15;

/// Monte-Carlo tree search over sequences of groups.
pub(crate) struct Mcts {
    groups: u32,
    nodes: Vec<TreeNode>,
    /// The nodes from the root to the last new node.
    path: Vec<usize>,
    best_s: f64,
}

/// A prefix of the sequence.
struct TreeNode {
    group: u32,
    children: Vec<usize>,
    /// Groups that have no child yet.
    untried: Vec<u32>,
    visits: f64,
    /// The least makespan below this node.
    best_s: f64,
}

impl Mcts {
    pub(crate) fn new(groups: usize) -> Self {
        let root = TreeNode {
            group: 0,
            children: Vec::new(),
            untried: (0..groups as u32).collect(),
            visits: 0.0,
            best_s: f64::INFINITY,
        };
        Self { groups: groups as u32, nodes: vec![root], path: Vec::new(), best_s: f64::INFINITY }
    }

    /// The child with the best upper confidence bound.
    fn select(&self, node: usize) -> Option<usize> {
        let visits = self.nodes[node].visits.max(1.0);
        let bound = |&child: &usize| {
            let child = &self.nodes[child];
            let score = (self.best_s / child.best_s).powf(ALPHA);
            score + BETA * (visits.ln() / child.visits.max(1.0)).sqrt()
        };
        let children = self.nodes[node].children.iter().copied();
        children.max_by(|a, b| bound(a).total_cmp(&bound(b)))
    }
}

impl Reorder for Mcts {
    fn propose(&mut self, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
        self.path = vec![0];
        let mut node = 0;
        let mut prefix: Vec<u32> = Vec::new();
        while self.nodes[node].untried.is_empty() {
            let Some(child) = self.select(node) else { break };
            node = child;
            prefix.push(self.nodes[node].group);
            self.path.push(node);
        }
        if !self.nodes[node].untried.is_empty() {
            let at = rng.random_range(0..self.nodes[node].untried.len());
            let group = self.nodes[node].untried.swap_remove(at);
            prefix.push(group);
            let untried = (0..self.groups).filter(|g| !prefix.contains(g)).collect();
            let child = self.nodes.len();
            let (children, best_s) = (Vec::new(), f64::INFINITY);
            self.nodes.push(TreeNode { group, children, untried, visits: 0.0, best_s });
            self.nodes[node].children.push(child);
            self.path.push(child);
        }
        let rest: Vec<u32> = (0..self.groups).filter(|g| !prefix.contains(g)).collect();
        let rollout = |_| {
            let mut rest = rest.clone();
            rest.shuffle(rng);
            prefix.iter().copied().chain(rest).collect()
        };
        (0..ROLLOUTS).map(rollout).collect()
    }

    fn learn(&mut self, seconds: &[f64]) {
        let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        self.best_s = self.best_s.min(best);
        for &node in &self.path {
            let node = &mut self.nodes[node];
            node.visits += 1.0;
            node.best_s = node.best_s.min(best);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_tree_finds_the_first_group_that_matters() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut reorder = Mcts::new(6);
        for _ in 0..200 {
            let cost = |s: &Vec<u32>| if s[0] == 4 { 1.0 } else { 2.0 };
            let costs: Vec<f64> = reorder.propose(&mut rng).iter().map(cost).collect();
            reorder.learn(&costs);
        }
        let root = &reorder.nodes[0];
        let most = root
            .children
            .iter()
            .max_by(|&&a, &&b| reorder.nodes[a].visits.total_cmp(&reorder.nodes[b].visits));
        assert_eq!(most.map(|&child| reorder.nodes[child].group), Some(4));
    }
}
