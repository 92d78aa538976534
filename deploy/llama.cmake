# Build options of llama.cpp that cannot be given as -D arguments: llama-cpp-python forces its own values into the
# CMake cache, and only a normal variable set before its project() wins over those. CMAKE_TOOLCHAIN_FILE names this
# file, and CMAKE reads a toolchain file that early. It chooses no compiler: this is a native build.

# llama.cpp's "common" library serves its own command-line programs; edged uses libllama alone.
set(LLAMA_BUILD_COMMON OFF)

# A wheel holds no symbolic links: libllama.so, libllama.so.0 and libllama.so.0.0.1 would be three whole copies, and
# two of libggml loaded side by side keep two lists of back ends. One name, one file.
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)

# GCC 12, of Debian 12, reads eight bytes of AMX's tile configuration where the instruction reads 64, and drops the
# stores of the others: llama.cpp then dies of SIGSEGV in its first pass on any Xeon with AMX (llama.cpp's pull request
# 26954 tells of the same). Its AVX-512 code is used there instead.
if(CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
    set(CMAKE_C_FLAGS_INIT "-mno-amx-int8")
    set(CMAKE_CXX_FLAGS_INIT "-mno-amx-int8")
endif()
