'use strict'
// RabbitMQ for the Node peers, on amqplib: one connection, one channel, persistent messages
// to a queue that is there already.
//
// BENCHMARK_OUTLET says how: "nowait" takes the message for safe as soon as amqplib has it,
// as the plugins that people install do; "confirm" waits for the broker.

const amqplib = require('amqplib')
const { document } = require('./document')

const PROPERTIES = { contentType: 'application/json', persistent: true, type: 'mailgw.message' }

// Connects, and returns publish(mail, done); done(error) is called once for each mail.
exports.connect = async () => {
    const queue = process.env.BENCHMARK_QUEUE
    const connection = await amqplib.connect(process.env.BENCHMARK_AMQP_URL, { noDelay: true })
    switch (process.env.BENCHMARK_OUTLET) {
        case 'confirm': {
            const channel = await connection.createConfirmChannel()
            const properties = { ...PROPERTIES, mandatory: true }
            return (mail, done) => channel.sendToQueue(queue, document(mail), properties, done)
        }
        case 'nowait': {
            const channel = await connection.createChannel()
            channel.setMaxListeners(0)
            return (mail, done) => {
                // False: amqplib's buffer is full. The plugins that people install then refuse
                // the mail; here it waits, because no mail of a turn may be lost.
                if (channel.sendToQueue(queue, document(mail), PROPERTIES)) done()
                else channel.once('drain', () => done())
            }
        }
        default:
            throw new Error('BENCHMARK_OUTLET is neither nowait nor confirm')
    }
}
