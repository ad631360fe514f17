//! Finds the call in a stack by which a runtime polls a task.

use super::known_frame::KnownFrame;

/// The call by which a runtime polls the task that its worker is in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PollSite {
    /// The return address of the poll. The worker passes it once for each poll that this call makes.
    pub(super) return_address: usize,
    /// The address of the function that tokio compiled for this type of task. Another address is another task. `None`
    /// for the future of `block_on`, which is no task.
    pub(super) task: Option<usize>,
}

/// A function in a stack: its address, whether that is a return address, and the known function there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) address: usize,
    pub(super) is_return: bool,
    pub(super) known: Option<KnownFrame>,
}

/// Returns the outermost poll of a task in a stack. `functions` come innermost first.
///
/// A task may run a runtime of its own, or call the scheduler, for instance to wake another task. Both are inside the
/// poll, so the outermost poll counts. The worker itself runs as a task of the blocking pool, which is outside.
pub(super) fn outermost_poll(functions: &[Function]) -> Option<PollSite> {
    let mut scheduler: Option<&Function> = None;
    let mut block_on: Option<&Function> = None;
    for function in functions.iter().rev() {
        match function.known {
            Some(KnownFrame::Task) if scheduler.is_some() => {
                return site(scheduler?, Some(function.address));
            }
            Some(KnownFrame::BlockOn) => (scheduler, block_on) = (Some(function), Some(function)),
            Some(KnownFrame::Worker | KnownFrame::Scheduler | KnownFrame::LocalSet) => {
                scheduler = Some(function)
            }
            _ => {}
        }
    }
    // The stack shows no poll of a task: it is in the future of `block_on`, or between two polls.
    site(block_on?, None)
}

/// Returns the site of a call. `None` for the innermost function, which has made no call.
fn site(scheduler: &Function, task: Option<usize>) -> Option<PollSite> {
    scheduler.is_return.then_some(PollSite {
        return_address: scheduler.address,
        task,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the functions innermost first. Addresses are positions, and only the first is no return address.
    fn outermost(known: &[Option<KnownFrame>]) -> Option<PollSite> {
        let function = |(address, known): (usize, &Option<KnownFrame>)| Function {
            address,
            is_return: address > 0,
            known: *known,
        };
        let functions: Vec<_> = known.iter().enumerate().map(function).collect();
        outermost_poll(&functions)
    }

    const USER: Option<KnownFrame> = None;
    const TASK: Option<KnownFrame> = Some(KnownFrame::Task);
    const WORKER: Option<KnownFrame> = Some(KnownFrame::Worker);
    const POOL: Option<KnownFrame> = Some(KnownFrame::Pool);
    const SCHEDULER: Option<KnownFrame> = Some(KnownFrame::Scheduler);
    const BLOCK_ON: Option<KnownFrame> = Some(KnownFrame::BlockOn);
    const LOCAL_SET: Option<KnownFrame> = Some(KnownFrame::LocalSet);

    fn site(return_address: usize, task: Option<usize>) -> Option<PollSite> {
        Some(PollSite {
            return_address,
            task,
        })
    }

    #[test]
    fn outermost_poll_of_a_worker_returns_to_the_caller_of_its_task() {
        let stack = [USER, TASK, TASK, WORKER, WORKER, TASK, POOL];
        assert_eq!(outermost(&stack), site(3, Some(2)));
    }

    #[test]
    fn outermost_poll_with_a_scheduler_called_by_the_task_is_that_of_the_task() {
        let stack = [USER, WORKER, USER, TASK, WORKER, TASK, POOL];
        assert_eq!(outermost(&stack), site(4, Some(3)));
    }

    #[test]
    fn outermost_poll_with_a_runtime_inside_a_task_is_that_of_the_task() {
        let stack = [USER, TASK, SCHEDULER, BLOCK_ON, USER, TASK, WORKER, POOL];
        assert_eq!(outermost(&stack), site(6, Some(5)));
    }

    #[test]
    fn outermost_poll_of_a_worker_between_two_polls_is_none() {
        assert_eq!(outermost(&[USER, WORKER, WORKER, TASK, POOL]), None);
        assert_eq!(outermost(&[WORKER, TASK, POOL]), None);
        assert_eq!(outermost(&[USER, USER]), None);
    }

    #[test]
    fn outermost_poll_of_a_current_thread_runtime_covers_tasks_its_future_and_local_sets() {
        let stack = [USER, TASK, SCHEDULER, SCHEDULER, BLOCK_ON];
        assert_eq!(outermost(&stack), site(2, Some(1)));
        assert_eq!(outermost(&[USER, USER, BLOCK_ON, BLOCK_ON]), site(2, None));
        let stack = [USER, TASK, LOCAL_SET, USER, BLOCK_ON, SCHEDULER];
        assert_eq!(outermost(&stack), site(2, Some(1)));
        // The future of `block_on` wakes a task.
        assert_eq!(outermost(&[SCHEDULER, USER, BLOCK_ON]), site(2, None));
    }

    #[test]
    fn outermost_poll_of_an_inlined_future_without_calls_is_none() {
        assert_eq!(outermost(&[BLOCK_ON, SCHEDULER]), None);
    }
}
