'use strict'
// Drops what was received.

exports.hook_queue = (next) => next(OK)
