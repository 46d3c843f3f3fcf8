"""The grammar that scripted experts on robosuite's Panda are written in, and LIBERO's expert in it."""
