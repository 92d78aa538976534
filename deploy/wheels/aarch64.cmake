# Compiles llama.cpp on an x86 Debian for 64-bit Arm boards: names the cross compiler, and holds the options that
# llama-cpp-python would otherwise overrule (deploy/llama.cmake says how that works, and why these two).
include("${CMAKE_CURRENT_LIST_DIR}/../llama.cmake")

set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# The libraries find each other, and the OpenMP library that is put beside them, in their own folder.
set(CMAKE_INSTALL_RPATH "$ORIGIN")
