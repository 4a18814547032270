//! System tests of Ternwatch.
