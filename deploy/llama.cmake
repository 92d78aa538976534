# Build options of llama.cpp that cannot be given as -D arguments: llama-cpp-python forces its own values into the
# CMake cache, and only a normal variable set before its project() wins over those. CMAKE_TOOLCHAIN_FILE names this
# file, and CMAKE reads a toolchain file that early. It chooses no compiler: this is a native build.

# llama.cpp's "common" library serves its own command-line programs; edged uses libllama alone.
set(LLAMA_BUILD_COMMON OFF)

# A wheel holds no symbolic links: libllama.so, libllama.so.0 and libllama.so.0.0.1 would be three whole copies, and
# two of libggml loaded side by side keep two lists of back ends. One name, one file.
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)
