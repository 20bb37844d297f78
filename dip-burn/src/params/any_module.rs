//! Object-safe traits for Burn modules, so that chunks of all modalities have one type.
//!
//! Burn's visitors and mappers are generic over the rank of a tensor, so they cannot be trait objects. Here each rank has its own
//! method.

use std::any::Any;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A Burn [`Module`] of any type. All modules implement it; their float parameters must have 1 to 6 dimensions.
pub trait AnyModule<B: Backend> {
    /// Shows every float parameter to `visitor`.
    fn visit_any(&self, visitor: &mut dyn AnyVisitor<B>);

    /// Replaces every float parameter by the result of `mapper`.
    fn map_any(&mut self, mapper: &mut dyn AnyMapper<B>);
}

impl<B: Backend> dyn AnyModule<B> + '_ {
    /// Shows every float parameter to `visitor`.
    pub fn visit<V: ModuleVisitor<B>>(&self, visitor: &mut V) {
        self.visit_any(visitor);
    }

    /// Replaces every float parameter by the result of `mapper`.
    pub fn map<M: ModuleMapper<B>>(&mut self, mapper: &mut M) {
        self.map_any(mapper);
    }
}

impl<B: Backend, M: Module<B> + 'static> AnyModule<B> for M {
    fn visit_any(&self, visitor: &mut dyn AnyVisitor<B>) {
        self.visit(&mut Ranked(visitor));
    }

    fn map_any(&mut self, mapper: &mut dyn AnyMapper<B>) {
        *self = self.clone().map(&mut Ranked(mapper));
    }
}

/// Calls the method for the rank of a parameter.
struct Ranked<'a, T: ?Sized>(&'a mut T);

macro_rules! ranks {
    ($($method:ident: $rank:literal),*) => {
        /// A [`ModuleVisitor`] with a method for each rank. All visitors implement it.
        pub trait AnyVisitor<B: Backend> {
            /// Enters a part of the module.
            fn enter(&mut self, name: &str, container: &str);
            /// Leaves a part of the module.
            fn exit(&mut self, name: &str, container: &str);
            $(
                /// Sees a parameter of this rank.
                fn $method(&mut self, parameter: &Param<Tensor<B, $rank>>);
            )*
        }

        impl<B: Backend, V: ModuleVisitor<B>> AnyVisitor<B> for V {
            fn enter(&mut self, name: &str, container: &str) {
                self.enter_module(name, container);
            }

            fn exit(&mut self, name: &str, container: &str) {
                self.exit_module(name, container);
            }

            $(
                fn $method(&mut self, parameter: &Param<Tensor<B, $rank>>) {
                    self.visit_float(parameter);
                }
            )*
        }

        impl<B: Backend> ModuleVisitor<B> for Ranked<'_, dyn AnyVisitor<B> + '_> {
            fn enter_module(&mut self, name: &str, container: &str) {
                self.0.enter(name, container);
            }

            fn exit_module(&mut self, name: &str, container: &str) {
                self.0.exit(name, container);
            }

            fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
                let parameter: &dyn Any = parameter;
                $(
                    if let Some(parameter) = parameter.downcast_ref() {
                        return self.0.$method(parameter);
                    }
                )*
                unsupported_rank(D)
            }
        }

        /// A [`ModuleMapper`] with a method for each rank. All mappers implement it.
        pub trait AnyMapper<B: Backend> {
            /// Enters a part of the module.
            fn enter(&mut self, name: &str, container: &str);
            /// Leaves a part of the module.
            fn exit(&mut self, name: &str, container: &str);
            $(
                /// The new value of a parameter of this rank.
                fn $method(&mut self, parameter: Param<Tensor<B, $rank>>)
                -> Param<Tensor<B, $rank>>;
            )*
        }

        impl<B: Backend, M: ModuleMapper<B>> AnyMapper<B> for M {
            fn enter(&mut self, name: &str, container: &str) {
                self.enter_module(name, container);
            }

            fn exit(&mut self, name: &str, container: &str) {
                self.exit_module(name, container);
            }

            $(
                fn $method(
                    &mut self,
                    parameter: Param<Tensor<B, $rank>>,
                ) -> Param<Tensor<B, $rank>> {
                    self.map_float(parameter)
                }
            )*
        }

        impl<B: Backend> ModuleMapper<B> for Ranked<'_, dyn AnyMapper<B> + '_> {
            fn enter_module(&mut self, name: &str, container: &str) {
                self.0.enter(name, container);
            }

            fn exit_module(&mut self, name: &str, container: &str) {
                self.0.exit(name, container);
            }

            fn map_float<const D: usize>(
                &mut self,
                parameter: Param<Tensor<B, D>>,
            ) -> Param<Tensor<B, D>> {
                let parameter: Box<dyn Any> = Box::new(parameter);
                $(
                    let parameter = match parameter.downcast() {
                        Ok(parameter) => return same_rank(self.0.$method(*parameter)),
                        Err(parameter) => parameter,
                    };
                )*
                drop(parameter);
                unsupported_rank(D)
            }
        }
    };
}

ranks!(rank_1: 1, rank_2: 2, rank_3: 3, rank_4: 4, rank_5: 5, rank_6: 6);

/// Converts `mapped` to `U`, which is the same type, although the compiler cannot prove it.
fn same_rank<T: 'static, U: 'static>(mapped: T) -> U {
    let mapped: Box<dyn Any> = Box::new(mapped);
    *mapped.downcast().expect("a mapper keeps the rank of a parameter")
}

fn unsupported_rank(rank: usize) -> ! {
    panic!("a parameter has {rank} dimensions; chunks may have parameters of 1 to 6")
}
